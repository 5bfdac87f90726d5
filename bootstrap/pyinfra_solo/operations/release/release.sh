# Makes a release of an application, or looks whether one is wanted. See app.py for what it promises.
#   release look  BASE REPO REF TIMEOUT
#   release apply BASE REPO REF TIMEOUT SHA KEEP REQUIREMENTS USER PYTHON WHEELS OFFLINE BUILD
# REF is what the operator wrote, SHA what `look` found for it. An empty REPO is not asked.
set -eu
umask 022
export LC_ALL=C HOME="${HOME:-/root}"
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES \
    GIT_COMMON_DIR GIT_NAMESPACE GIT_CONFIG_COUNT GIT_CONFIG_PARAMETERS
cd /

mode=$1 base=$2 repo=$3 ref=$4 timeout=$5
shift 5
app=${base##*/}
marker=.pyinfra-solo-release
git_dir=$base/repo.git
# Not the wall clock, which may be set while a first boot is under way.
uptime() { cut -d. -f1 /proc/uptime; }
deadline=$(($(uptime) + timeout))

say() { printf '%s: %s\n' "$app" "$*"; }
fail() {
    printf '%s: %s\n' "$app" "$*" >&2
    exit 1
}
# Only printable ASCII: pyinfra stops reading a command's output at a byte that is not UTF-8.
plain() { tr -cd '\11\12\40-\176'; }

# --foreground: in a process group of its own, `timeout` would outlive the kill of the run's group.
bounded() {
    left=$((deadline - $(uptime)))
    [ "$left" -gt 0 ] || left=1
    timeout --foreground -k 5 "$left" "$@"
}
git_here() {
    bounded git --git-dir="$git_dir" -c gc.auto=0 -c maintenance.auto=false -c core.hooksPath=/dev/null \
        -c transfer.fsckObjects=true "$@"
}

is_sha() {
    case $1 in *[!0-9a-f]*) return 1 ;; esac
    [ ${#1} -eq 40 ]
}

# The full commit of a release folder, or nothing: a release without its marker is never believed.
released() {
    [ ! -f "$1/$marker" ] || head -n 1 "$1/$marker"
}
current_folder() {
    target=$(readlink "$base/current" 2>/dev/null) || return 0
    case $target in releases/*) printf '%s\n' "$base/$target" ;; esac
}

look() {
    printf 'current=%s\n' "$(released "$(current_folder)")"
    for path in "$base"/releases/.tmp-*; do
        [ ! -e "$path" ] || { echo leftovers=yes && break; }
    done
    [ -n "$repo" ] || return 0
    if is_sha "$ref"; then
        printf 'wanted=%s\n' "$ref"
        return 0
    fi
    status=0
    answer=$(bounded git ls-remote --exit-code -- "$repo" "$ref" "$ref^{}" 2>&1) || status=$?
    if [ "$status" = 2 ]; then
        echo unknown=yes
        return 0
    elif [ "$status" != 0 ]; then
        [ "$status" != 124 ] || answer="no answer in $timeout s"
        printf 'problem=%s\n' "$(printf '%s\n' "$answer" | plain | grep -v '^ *$' | head -n 1 | cut -c1-200)"
        return 0
    fi
    for name in "refs/heads/$ref" "refs/tags/$ref^{}" "refs/tags/$ref" "$ref^{}" "$ref"; do
        found=$(printf '%s\n' "$answer" | awk -F '\t' -v name="$name" '$2 == name { print $1; exit }')
        if is_sha "$found"; then
            printf 'wanted=%s\n' "$found"
            return 0
        fi
    done
    echo unknown=yes
}

flush() { sync "$@" 2>/dev/null || sync; } # before coreutils 8.24 sync takes no argument

# Points the link $1 at releases/$2 by a rename, so that it is never absent and never half.
point() {
    ln -s "releases/$2" "$base/.tmp-link"
    mv -T "$base/.tmp-link" "$base/$1"
    flush "$base"
}

tidy() {
    rm -rf "$base"/releases/.tmp-* "$base/.tmp-link" "$base/.tmp-repo.git"
    [ ! -d "$git_dir" ] || find "$git_dir" \( -name '*.lock' -o -name 'tmp_*' \) -type f -delete
}

# Every fetch leaves a pack; a repository made anew is cheaper than collecting garbage at boot.
fetch() {
    if [ "$(find "$git_dir/objects/pack" -name '*.pack' 2>/dev/null | wc -l)" -gt 40 ] ||
        ! git_here rev-parse --is-bare-repository >/dev/null 2>&1; then
        rm -rf "$git_dir"
        git init --quiet --bare --template= "$base/.tmp-repo.git"
        mv -T "$base/.tmp-repo.git" "$git_dir"
    fi
    git_here cat-file -e "$sha^{commit}" 2>/dev/null && return 0
    git_here fetch --quiet --no-tags --depth=1 --force -- "$repo" "$sha" && return 0
    # A server may refuse a commit that is no tip (uploadpack.allowReachableSHA1InWant).
    git_here fetch --quiet --no-tags --force -- "$repo" '+refs/heads/*:refs/heads/*' '+refs/tags/*:refs/tags/*'
}

checkout() {
    rm -rf "$tmp" "$tmp.index"
    mkdir "$tmp"
    GIT_INDEX_FILE=$tmp.index git_here --work-tree="$tmp" -c core.symlinks=true -c core.autocrlf=false \
        read-tree --reset -u "$sha" || return 1
    rm -f "$tmp.index"
}

# A repository that a power cut has damaged is made anew, once.
source_tree() {
    fetch || return 1
    git_here cat-file -e "$sha^{commit}" 2>/dev/null || fail "the commit $sha is not in $repo. Push it, or name another."
    checkout && return 0
    say "its repository here is damaged: made anew"
    rm -rf "$git_dir"
    fetch && checkout
}

refuse_hostile() {
    if [ -e "$tmp/.venv" ] || [ -e "$tmp/$marker" ]; then
        fail "the tree brings a .venv or a $marker of its own. Remove it and commit."
    fi
    outside=$(find "$tmp" -type l -exec sh -c '
        root=$1; shift
        for link; do
            case $(readlink -m -- "$link"; echo .) in "$root"/*) ;; *) printf "%s\n" "${link#"$root"/}" ;; esac
        done' sh "$tmp" {} + | plain | head -n 1)
    [ -z "$outside" ] || fail "the symlink $outside points outside of the release. Remove it and commit."
}

uv_here() { bounded "$uv" --no-config --quiet --no-progress --no-python-downloads "$@"; }

# The cache is off: after a power cut uv would copy truncated files from it, and hashes are checked
# at download only. Wheels that the image brings come first, so that no index is needed.
with_uv() {
    uv_here venv --no-cache --no-project --relocatable --link-mode copy --python "$python" "$tmp/.venv"
    set -- pip install --no-cache --link-mode copy --compile-bytecode --require-hashes \
        --python "$tmp/.venv/bin/python" --requirement "$tmp/$requirements"
    [ "$build" = yes ] || set -- "$@" --no-build
    if [ -d "$wheels" ]; then
        set -- "$@" --find-links "$wheels"
        uv_here "$@" --offline --no-index 2>/dev/null && return 0
    fi
    uv_here "$@"
}

with_pip() {
    bounded "$python" -m venv "$tmp/.venv" || return 1
    set -- install --quiet --no-cache-dir --disable-pip-version-check --no-input --require-hashes \
        --requirement "$tmp/$requirements"
    [ "$build" = yes ] || set -- "$@" --only-binary :all:
    [ ! -d "$wheels" ] || set -- "$@" --find-links "$wheels"
    if [ ! -d "$wheels" ] || ! bounded "$tmp/.venv/bin/python" -m pip "$@" --no-index 2>/dev/null; then
        bounded "$tmp/.venv/bin/python" -m pip "$@" || return 1
    fi
    # pip writes the building path into each script's first line; the release is renamed later.
    grep -lI "$tmp" "$tmp/.venv/bin"/* | while read -r file; do
        [ -L "$file" ] || sed -i "s|$tmp|$release|g" "$file"
    done
}

environment() {
    [ -f "$tmp/$requirements" ] || fail "there is no $requirements at $sha. Commit one, made with: uv pip compile --generate-hashes"
    uv=/opt/pyinfra-solo/uv/bin/uv
    [ -x "$uv" ] || uv=$(command -v uv || true)
    how=with_pip
    [ -z "$uv" ] || how=with_uv
    $how || fail "the environment that $requirements asks for cannot be made. Is each of its packages reachable as a wheel?"
}

build_release() {
    tmp=$base/releases/.tmp-$id-$$
    if ! source_tree; then
        was=$(current_folder)
        [ "$offline" = keep ] && [ -n "$(released "$was")" ] || fail "git cannot fetch ${repo##*@}, and there is no release here to stay at. Is it reachable from this machine?"
        say "stays at ${was##*/}: git cannot fetch $id"
        rm -rf "$tmp"
        exit 0
    fi
    say "has the tree of $id"
    refuse_hostile
    [ -z "$requirements" ] || { environment && say "has its environment"; }
    # As the app may not write here, python could not keep its bytecode at run time.
    "$python" -m compileall -q -x '/\.venv/' "$tmp" >/dev/null 2>&1 || true

    # Contents, then the marker, then the names: what a power cut leaves is either whole or not believed.
    flush -f "$tmp"
    printf '%s\n' "$sha" >"$tmp/$marker"
    flush "$tmp/$marker" "$tmp"
    [ ! -e "$release" ] || mv -T "$release" "$base/releases/.tmp-old-$id-$$"
    mv -T "$tmp" "$release"
    flush "$base/releases"
    say "has built $id"
}

# Renamed first: what is being removed must not look like a release, should this be killed half-way.
prune() {
    kept=0
    for file in $(ls -1dt "$base"/releases/*/"$marker"); do
        folder=${file%/*}
        kept=$((kept + 1))
        [ "$kept" -gt "$keep" ] || continue
        case releases/${folder##*/} in "$(readlink "$base/current")" | "$(readlink "$base/previous")") continue ;; esac
        mv -T "$folder" "$base/releases/.tmp-old-${folder##*/}-$$"
    done
    rm -rf "$base"/releases/.tmp-old-*
}

# Tools tell of a full disk in words of their own, few of them clear. pyinfra_solo shows the last line.
full() {
    status=$?
    free=$(df -Pk "$base" 2>/dev/null | awk 'NR == 2 { print $4 }')
    [ "$status" = 0 ] || [ "${free:-1024}" -ge 1024 ] || say "the disk is full at $base. Make room there." >&2
}

apply() {
    trap full EXIT
    sha=$1 keep=$2 requirements=$3 user=$4 python=$5 wheels=$6 offline=$7 build=$8
    id=$(printf '%.12s' "$sha")
    release=$base/releases/$id
    id -u -- "$user" >/dev/null 2>&1 || fail "there is no user $user. Create it before the release."
    mkdir -p "$base/releases"
    # What the app may write. Made once: mode and owner are set before it has its name.
    [ -d "$base/shared" ] || install -d -m 0750 -o "$user" -g "$(id -g -- "$user")" "$base/shared"
    exec 9>"$base/.lock"
    flock -w 60 9 || fail "another run is making a release. End it, or wait for it."
    tidy
    found=$(released "$release")
    [ -z "$found" ] || [ "$found" = "$sha" ] || fail "$id is already the release of another commit ($found). Make one more commit."
    [ -n "$found" ] || build_release
    was=$(current_folder)
    if [ "$was" != "$release" ]; then
        [ -z "$(released "$was")" ] || point previous "${was##*/}"
        point current "$id"
        say "current is $id"
    fi
    prune
}

"$mode" "$@"
