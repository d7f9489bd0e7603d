//! `holdfast-custodian`: the daemon that keeps one share of each cluster.
#![allow(dead_code, reason = "the daemon that uses these is being built")]

mod kernel;
mod sandbox;

fn main() {}
