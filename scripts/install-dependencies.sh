#!/bin/sh
# Installs the Debian packages that building needs, and with the argument "test" those that testing needs.
# Does nothing, quickly, when they are there. As root, or through sudo. Starts no service.
set -eu

build_packages="build-essential cmake ninja-build pkg-config python3 liburing-dev libck-dev"
build_packages="$build_packages libcmocka-dev libjemalloc-dev libxxhash-dev libsystemd-dev libssl-dev"
test_packages="redis-server redis-tools python3-redis python3-pytest strace libfuse3-dev e2fsprogs"
test_packages="$test_packages libhiredis-dev nutcracker"
test_packages="$test_packages clang clang-format clang-tidy libclang-rt-14-dev"
# For clients from npm, where they have not come another way.
command -v node >/dev/null || test_packages="$test_packages nodejs"
command -v npm >/dev/null || test_packages="$test_packages npm"

case "${1-}" in
"") packages=$build_packages ;;
test) packages="$build_packages $test_packages" ;;
*)
    echo "usage: $0 [test]" >&2
    exit 2
    ;;
esac

fail() {
    echo "$0: $1" >&2
    exit 1
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    fail "this is not Debian; install by other means what these packages hold: $packages"
fi

# shellcheck disable=SC2086 # a list of words
installed=$(dpkg-query --show --showformat='${Package} ${db:Status-Status}\n' $packages 2>/dev/null |
    sed -n 's/ installed$//p' || true)
missing=
for package in $packages; do
    printf '%s\n' "$installed" | grep -qxF "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        exec sudo "$0" "$@"
    fi
    fail "missing packages; run as root: apt-get install$missing"
fi

echo "Installing$missing"
work=$(mktemp -d)
policy=/usr/sbin/policy-rc.d
our_policy=
clean_up() {
    [ -z "$our_policy" ] || rm -f "$policy"
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The tests start their own servers; those started here would only occupy their ports. Where there is a policy already,
# it is the administrator's word.
if [ ! -e "$policy" ]; then
    our_policy=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
run() {
    if ! "$@" >"$work/log" 2>&1; then
        cat "$work/log" >&2
        fail "failed: $*"
    fi
}
run apt-get -q -o DPkg::Lock::Timeout=300 update
# shellcheck disable=SC2086 # a list of words
run apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install --no-install-recommends $missing

for service in redis-server nutcracker; do # nor at the next boot
    case " $missing " in
    *" $service "*)
        if command -v systemctl >/dev/null; then
            systemctl disable "$service.service" >/dev/null 2>&1 || true
        fi
        ;;
    esac
done
