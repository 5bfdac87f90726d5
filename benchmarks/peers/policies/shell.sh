#!/bin/sh
# The work as an administrator writes it in POSIX shell.
set -eu
umask 022
changes=0
changed() { changes=$((changes + 1)); }

directory() { # path mode
	if [ ! -d "$1" ]; then
		mkdir -m "$2" "$1" && changed
	elif [ "$(stat -c %a:%u:%g "$1")" != "$2:$us" ]; then
		chmod "$2" "$1" && chown "$us" "$1" && changed
	fi
}

file() { # path mode, content in $new
	if ! cmp -s "$new" "$1"; then
		cp "$new" "$1.new" && chmod "$2" "$1.new" && mv "$1.new" "$1" && changed
	elif [ "$(stat -c %a:%u:%g "$1")" != "$2:$us" ]; then
		chmod "$2" "$1" && chown "$us" "$1" && changed
	fi
}

link() { # path target
	if [ "$(readlink "$1" || :)" != "$2" ]; then
		ln -sfn "$2" "$1" && changed
	fi
}

render() { # title shard port
	title=$1 shard=$2 port=$3
	cat <<END
@TEMPLATE@
END
}

us=$(id -u):$(id -g)
new=$(mktemp)
trap 'rm -f "$new"' EXIT
id -u www-data >/dev/null 2>&1 || { useradd www-data && changed; }
dpkg-query -Wf '${db:Status-Status}' git 2>/dev/null | grep -qx installed || { apt-get install -y git && changed; }
grep -qx 'limit = 4096' "$W_ROOT/lines.conf" || { echo 'limit = 4096' >>"$W_ROOT/lines.conf" && changed; }
folder=0
while [ "$folder" -lt "$W_FOLDERS" ]; do
	directory "$W_ROOT/d$folder" 750
	number=0
	while [ "$number" -lt 10 ]; do
		render "d$folder-f$number" "$folder" "90$number" >"$new"
		file "$W_ROOT/d$folder/f$number" 644
		number=$((number + 1))
	done
	link "$W_ROOT/d$folder/link" "$W_ROOT/d$folder/f0"
	folder=$((folder + 1))
done
echo "$changes changes"
