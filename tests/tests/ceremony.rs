//! The ceremony, as people hold it: the built `holdfast-setup` and `holdfast`, a real OpenBao, and gpg, ssh-keygen and a plain
//! HTTP client to check what they did. None of the product's code is in here.

#[path = "ceremony/adoption.rs"]
mod adoption;
#[path = "ceremony/deliver.rs"]
mod deliver;
#[path = "ceremony/generations.rs"]
mod generations;
#[path = "ceremony/holders.rs"]
mod holders;
#[path = "ceremony/impostor.rs"]
mod impostor;
#[path = "ceremony/interrupted.rs"]
mod interrupted;
#[path = "ceremony/refusals.rs"]
mod refusals;
#[path = "ceremony/road.rs"]
mod road;
#[path = "ceremony/terminal.rs"]
mod terminal;
#[path = "ceremony/world.rs"]
mod world;
