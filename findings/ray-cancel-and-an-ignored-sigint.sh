#!/usr/bin/env bash
# Guess: ray.cancel interrupts a task that runs, wherever its cluster was started.
# Found: it sends the worker SIGINT, and a process that a script starts in its background has that signal ignored (POSIX), as
# all that it starts. There ray.cancel returns, and the task runs to its end, and gives its result.
source "$(dirname "$0")/environment.bash"
python=$(environment ray==2.60.0)
cat > "$work/cancel.py" <<'PY'
import os
import time

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray

ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="ERROR", num_cpus=1)


@ray.remote
def work(file: str) -> str:
    open(file, "w").close()
    for _ in range(80):
        time.sleep(0.1)
    return "ran to its end"


file = os.path.join(os.environ["work"], f"began-{os.getpid()}")
ref = work.remote(file)
while not os.path.exists(file):
    time.sleep(0.1)
ray.cancel(ref)
try:
    print(ray.get(ref, timeout=60))
except (ray.exceptions.TaskCancelledError, ray.exceptions.RayTaskError):
    print("cancelled")
ray.shutdown()
PY
export work
# where the kernel allows it Ray runs in a network namespace of its own, with the loopback alone
inside() { if unshare -n true 2>/dev/null; then unshare -n sh -c 'ip link set lo up; exec "$@"' sh "$@"; else "$@"; fi; }
plain=$(inside "$python" "$work/cancel.py")
ignored=$(trap '' INT; inside "$python" "$work/cancel.py")
"$python" -c 'import ray; print("ray", ray.__version__)'
echo "a task of a cluster that was started in the foreground: $plain"
echo "one of a cluster whose starter has SIGINT ignored: $ignored"
[[ $plain == cancelled && $ignored == "ran to its end" ]]
