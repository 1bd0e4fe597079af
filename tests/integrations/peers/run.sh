#!/usr/bin/env bash
# The tests with trainers that want other versions of our dependencies, each in an environment of its own.
#
#     tests/integrations/peers/run.sh FOLDER [PYTHON] [NAME...]
#
# FOLDER: where the environments are made, and found again. PYTHON: of the environment that has this library and torch,
# .venv/bin/python by default. NAME: some of verl, verifiers03, verifiers04; all by default.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
folder=$(mkdir -p "$1" && cd "$1" && pwd)
python=$(command -v "${2:-$root/.venv/bin/python}")
names=("${@:3}")
[ ${#names[@]} -gt 0 ] || names=(verl verifiers03 verifiers04)

make() {
    local environment=$folder/$1
    cmp --quiet "$here/$1.txt" "$environment/made-from.txt" && return
    rm -rf "$environment"
    "$python" -m venv "$environment"
    if [ "$1" = verl ]; then
        # Behind its own packages come those of the other environment: what verl wants otherwise is installed here.
        "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
            >"$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz_lent.pth"
    fi
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/$1.txt"
    cp "$here/$1.txt" "$environment/made-from.txt"
}

makers=()
for name in "${names[@]}"; do
    make "$name" &
    makers+=($!)
done
for maker in "${makers[@]}"; do wait "$maker"; done

cd "$root"
export PYTHONPATH=$root
for name in "${names[@]}"; do
    printf -- '-- %s\n' "$name"
    case $name in
    verl) tests=(tests/integrations/peers/test_verl_peer.py tests/advantages/test_verl.py) ;;
    verifiers03) tests=(tests/integrations/peers/test_verifiers_legacy_peer.py) ;;
    verifiers04) tests=(tests/integrations/peers/test_verifiers_peer.py) ;;
    esac
    # -rs would be too little: a peer that is not there must not pass for one that agrees.
    "$folder/$name/bin/python" -m pytest -q -p no:cacheprovider --strict-markers "${tests[@]}" | tee "$folder/$name.log"
    if grep -q -E '^SKIPPED|no tests ran' "$folder/$name.log"; then
        echo "$name: tests were skipped" >&2
        exit 1
    fi
done
