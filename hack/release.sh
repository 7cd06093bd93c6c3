#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The files of a release, from the commit that its tag names. Usage: release.sh OUT
#   svcscope.tar, svcscope-ARCH.tar            the image, see hack/image.sh
#   svcscope_VERSION_linux_ARCH.tar.gz         the image's binary, with the license
#   svcscope_VERSION_linux_ARCH.spdx.json      what is in the image
#   svcscope-VERSION.tgz                       the chart
#   checksums.txt                              of all of them but the image, which has digests
#   image.txt                                  those digests
# HELM and SYFT are the programs to use (helm and syft on PATH).
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
fail() { printf 'svcscope: %s\n' "$@" >&2; exit 1; }

mkdir -p "${1:?release.sh OUT}"
out=$(cd "$1" && pwd)
[ -z "$(ls -A "$out")" ] || fail "$out is not empty."
helm=${HELM:-helm} syft=${SYFT:-syft}
command -v "$helm" >/dev/null || fail "$helm is not on PATH."
command -v "$syft" >/dev/null || fail "$syft is not on PATH."
cd "$here"
version=${VERSION:-$(git describe --tags --always --dirty)}
version=${version#v}
chart=$(awk '$1 == "version:" {print $2}' charts/svcscope/Chart.yaml)
app=$(awk '$1 == "appVersion:" {print $2}' charts/svcscope/Chart.yaml)
[ "$version" = "$chart" ] && [ "$version" = "$app" ] ||
	fail "this is $version, but charts/svcscope/Chart.yaml has version $chart and appVersion $app."
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

hack/image.sh "$out" | tee "$out/image.txt"
sed -i 's| [^ ]*/| |' "$out/image.txt"
for arch in amd64 arm64; do
	stem=svcscope_${version}_linux_$arch
	tar --create --format ustar --sort name --mtime "@$SOURCE_DATE_EPOCH" --owner 0 --group 0 --numeric-owner \
		--mode u=rwX,go=rX --directory "bin/image/linux/$arch" svcscope --directory "$here" LICENSE |
		gzip --no-name --best >"$out/$stem.tar.gz"
	"$syft" scan --quiet --source-name svcscope --source-version "$version" \
		"oci-archive:$out/svcscope-$arch.tar" -o "spdx-json=$out/$stem.spdx.json"
done
"$helm" package charts/svcscope --destination "$out" >/dev/null
cd "$out"
sha256sum -- *.tar.gz *.tgz *.spdx.json | tee checksums.txt
