#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The image as OCI archives, built by buildah without a daemon, a registry or
# the network. Usage: image.sh [--arch ARCH]... [OUT]
#   ARCH  amd64 or arm64; both if none is given
#   OUT   where svcscope-ARCH.tar go, and svcscope.tar, the index of them
#         (bin/image)
# Prints "ARCH DIGEST FILE" for each, ARCH being "index" for svcscope.tar.
#
# The same commit, Go and buildah give the same digests in any folder at any
# time. VERSION, REVISION and SOURCE_DATE_EPOCH (the commit's time) come from
# git; where there is no git, set them.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

fail() { printf 'svcscope: %s\n' "$@" >&2; exit 1; }

arches=()
while [ $# -gt 0 ]; do
	case $1 in
	--arch) arches+=("${2:?--arch needs a value}"); shift 2 ;;
	-*) sed -n '4,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
	*) break ;;
	esac
done
[ ${#arches[@]} -gt 0 ] || arches=(amd64 arm64)
mkdir -p "${1:-$here/bin/image}"
out=$(cd "${1:-$here/bin/image}" && pwd)
cd "$here"

command -v buildah >/dev/null || fail "buildah is not on PATH: apt-get install -y --no-install-recommends buildah"
# buildah's store gives files to UID 0, if only to that of a user namespace.
as_root=()
if [ "$(id -u)" != 0 ]; then
	unshare -Urm true 2>/dev/null || fail "neither root nor user namespaces here: buildah needs one of them."
	as_root=(unshare -Urm)
fi

version=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || true)}
revision=${REVISION:-$(git rev-parse HEAD 2>/dev/null || true)}
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || true)}
[ -n "$version" ] && [ -n "$revision" ] && [ -n "$epoch" ] ||
	fail "no git repository here: set VERSION, REVISION and SOURCE_DATE_EPOCH."
version=${version#v} # the tag v0.1.0 is version 0.1.0

work=$(mktemp -d "${TMPDIR:-/tmp}/svcscope-image.XXXXXX")
trap '"${as_root[@]}" rm -rf "$work"' EXIT
mkdir -m 700 "$work/home"
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$work/policy.json" # nothing is pulled

# bud COMMAND FLAG... runs buildah with a store, settings and temporary files of its own: as it does for an ordinary
# user, since for root it would lock and cache below /var and /etc, whatever the flags say.
bud() {
	"${as_root[@]}" env -u XDG_CONFIG_HOME -u XDG_DATA_HOME -u XDG_CACHE_HOME \
		HOME="$work/home" TMPDIR="$work/home" XDG_RUNTIME_DIR="$work/home" _CONTAINERS_USERNS_CONFIGURED=done _CONTAINERS_ROOTLESS_UID=65534 \
		buildah --root "$work/root" --runroot "$work/run" --storage-driver vfs "$@"
}

# What the Dockerfile copies. The modes are the image's.
image=bin/image
mkdir -p $image
(cd hack/cabundle && CGO_ENABLED=0 go run .) >"$work/ca-certificates.crt"
install -m 644 "$work/ca-certificates.crt" $image/ca-certificates.crt
pkg=github.com/prometheus/common/version
for arch in "${arches[@]}"; do
	GOOS=linux GOARCH=$arch CGO_ENABLED=0 GOAMD64=v1 GOARM64=v8.0 go build -trimpath -buildvcs=false \
		-ldflags "-s -w -X $pkg.Version=$version -X $pkg.Revision=$revision" -o "$work/svcscope" ./cmd/svcscope
	install -D -m 755 "$work/svcscope" "$image/linux/$arch/svcscope"
done

policy=(--signature-policy "$work/policy.json")
name=localhost/svcscope
bud manifest create $name >/dev/null
for arch in "${arches[@]}"; do
	bud build --quiet --isolation chroot "${policy[@]}" --os linux --arch "$arch" \
		--timestamp "$epoch" --identity-label=false --omit-history \
		--build-arg "VERSION=$version" --build-arg "REVISION=$revision" --tag "$name:$arch" . >/dev/null
	bud push --quiet "${policy[@]}" --digestfile "$work/digest" "$name:$arch" "oci-archive:$out/svcscope-$arch.tar:$version"
	echo "$arch $(cat "$work/digest") $out/svcscope-$arch.tar"
	bud manifest add --arch "$arch" $name "oci-archive:$out/svcscope-$arch.tar" >/dev/null
done
bud manifest push --quiet --all "${policy[@]}" --digestfile "$work/digest" $name "oci-archive:$out/svcscope.tar:$version"
echo "index $(cat "$work/digest") $out/svcscope.tar"
