#!/usr/bin/env bash
# Guess: `load_dataset("csv", data_files="mine.csv")` reads a file of this machine and asks nobody, the less so with
# HF_HUB_DISABLE_TELEMETRY=1.
# Found: it looks for s3.amazonaws.com first, with the builder's name in the address, to count it; for a data set of a hub, one's own
# at HF_ENDPOINT too, with the data set's name. HF_UPDATE_DOWNLOAD_COUNTS=0 ends it, and so does HF_HUB_OFFLINE=1;
# HF_HUB_DISABLE_TELEMETRY does not.
source "$(dirname "$0")/environment.bash"
python=$(environment datasets==5.2.0 huggingface_hub==2.4.0)
cat > "$work/asked.py" <<'PY'
import json
import os
import socket
import sys

asked = []


def nobody(host, *rest, **more):
    """In place of the name server: writes down who is looked for, and finds nobody."""
    asked.append(host.decode() if isinstance(host, bytes) else host)
    raise socket.gaierror(socket.EAI_NONAME, "nobody is there")


socket.getaddrinfo = nobody
os.environ["HF_HOME"] = sys.argv[1]
import datasets

rows = datasets.load_dataset("csv", data_files="mine.csv")["train"]
assert rows["text"][:] == ["one", "two"]
print(json.dumps(sorted(set(asked))))
PY
cd "$work"
printf 'text\none\ntwo\n' > mine.csv
unset HF_DATASETS_OFFLINE HF_UPDATE_DOWNLOAD_COUNTS
export HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_OFFLINE=0
"$python" -c 'import datasets, huggingface_hub; print("datasets", datasets.__version__, "huggingface_hub", huggingface_hub.__version__)'
file=$("$python" asked.py one)
switched_off=$(HF_UPDATE_DOWNLOAD_COUNTS=0 "$python" asked.py two)
offline=$(HF_HUB_OFFLINE=1 "$python" asked.py three)
echo "a CSV file of one's own looks for $file; with HF_UPDATE_DOWNLOAD_COUNTS=0: $switched_off; offline: $offline"
[[ $file == '["s3.amazonaws.com"]' && $switched_off == "[]" && $offline == "[]" ]]
