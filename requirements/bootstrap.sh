# Makes the virtual environment of spbench's own tools; sourced by ./spbench and ./run_tests.sh.
#
#   tools_python tools|dev     sets $python to its interpreter
#
# It lives in the user's cache directory and is named by a hash of requirements/NAME.txt and the
# version of Python, so that checkouts share it and an old one is never half-updated.

[ -n "${UV_FIND_LINKS+set}" ] || [ -z "${PIP_FIND_LINKS:-}" ] ||
    export UV_FIND_LINKS="${PIP_FIND_LINKS// /,}" # pip separates by spaces, uv by commas

fail() {
    echo "spbench: $*" >&2
    exit 2
}

# The first Python 3.10 or later on the PATH, as `COMMAND VERSION`.
find_python() {
    local candidate version
    for candidate in python3 python python3.{14,13,12,11,10}; do
        version=$("$candidate" -c 'import sys
if sys.version_info >= (3, 10): print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        [ -z "$version" ] || { echo "$candidate $version" && return; }
    done
    fail "no Python 3.10 or later on the PATH; install one (with pip and venv) and try again"
}

tools_python() {
    local requirements="$root/requirements/$1.txt" hash home
    hash=$(sha256sum <"$requirements") || fail "cannot read $requirements"
    home=${SPBENCH_CACHE:-${XDG_CACHE_HOME:-${HOME:?neither HOME nor SPBENCH_CACHE is set}/.cache}/spbench}
    home="$home/tools/$1-${hash:0:16}"
    for python in "$home"-py*/bin/python; do
        [ ! -x "$python" ] || return 0
    done
    make_tools "$1" "$requirements" "$home"
}

make_tools() {
    local name=$1 requirements=$2 home=$3 found version base venv
    found=$(find_python) || exit
    base=${found% *} version=${found#* }
    venv="$home-py$version"
    python="$venv/bin/python"
    mkdir -p "${home%/*}" 2>/dev/null ||
        fail "cannot write ${home%/*}; make it writable, or set SPBENCH_CACHE to a folder that is"
    {
        if command -v flock >/dev/null && ! flock --nonblock 9; then
            echo "spbench: waiting for another process that sets up the tools" >&2
            flock 9
        fi
        [ -x "$python" ] || ( # a subshell, so that its trap and its directory end with it
            unset PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX
            rm -rf "$venv" "$venv".partial-*
            new="$venv.partial-$$"
            trap 'rm -rf "$new"' EXIT
            trap 'exit 130' INT TERM HUP
            echo "spbench: setting up the $name environment with Python $version (once, about a minute)" >&2
            fill "$base" "$new" "$requirements" && mv "$new" "$venv"
        ) || exit
    } 9>"$venv.lock"
}

# Make the virtual environment $2 with the Python $1 and install the requirements $3 into it.
fill() {
    local base=$1 new=$2 requirements=$3 install pin
    if uv --version >/dev/null 2>&1; then
        base=$("$base" -c 'import sys; print(sys.executable)')
        uv venv --quiet --no-project --relocatable --python "$base" "$new" ||
            fail "uv could not make a virtual environment; see its message above"
        install=(uv)
    else
        pin=$(grep '^uv==' "$requirements") ||
            fail "no uv on the PATH, and no line uv==VERSION in $requirements; add one of the two"
        "$base" -m venv "$new" >&2 ||
            fail "$base -m venv failed; install Python's venv module (Debian, Ubuntu: python3-venv)"
        "$new/bin/python" -m pip install --quiet --disable-pip-version-check "$pin" >&2 ||
            fail "pip could not install $pin; see its message above, and check the network"
        install=("$new/bin/python" -m uv)
    fi
    "${install[@]}" pip install --quiet --compile-bytecode --python "$new/bin/python" \
        --requirement "$requirements" >&2 ||
        fail "uv could not install the tools; see its message above, and check the network" \
            "(uv does not read pip's configuration: set UV_DEFAULT_INDEX where pip needs an index)"
}
