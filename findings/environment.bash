# Sourced by the scripts beside it. `python=$(environment torch==2.13.0)` is the Python of a virtual environment with these
# packages. `make findings` names one folder for all scripts in FINDINGS_ENVIRONMENTS, so that equal pins are installed once;
# a script that runs alone installs into $work, its own folder, which is removed at its end.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HOME="$work/cache" OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
export PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1

environment() {
    local folder
    folder=${FINDINGS_ENVIRONMENTS:-$work}/$(printf '%s\n' "$@" | cksum | cut -d ' ' -f 1)
    if [ ! -e "$folder/complete" ]; then
        rm -rf "$folder"
        python3 -m venv "$folder" &&
            "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@" >&2 &&
            touch "$folder/complete" || exit 1
    fi
    echo "$folder/bin/python"
}
