#!/bin/bash
# One run on every host of a Cloud TPU VM or pod; preempted, it saves, and this script starts the same line again.
#
#   TPU=my-pod ZONE=europe-west4-b launch/tpu_vm.sh --config configs/qualityfm_base.py:tpu \
#       --config.data.store=/mnt/shared/store --workdir /mnt/shared/runs/base
#
# Expected on every host: this repository in ~/jaxbio with its environment (pip install '.[tpu]' into ~/jaxbio/.venv),
# and a file system that all hosts share for the store and the workdir. JAX finds the hosts by itself.
set -u
: "${TPU:?name the TPU: TPU=my-pod}" "${ZONE:?name its zone: ZONE=europe-west4-b}"
WAIT_S=${WAIT_S:-60} # between two looks at a TPU that is not ready
PREEMPTED=75         # jaxbio: saved, start me again
GONE=69              # jaxbio: another host ended without a word
LOST=255             # our name for: no host said how it ended, as when a spot TPU is taken

# Print what the hosts print; exit with the first code that is none of these, else 69, else 75, else 0, else LOST.
read_codes() {
    awk -v code="$LOST" -v lost="$LOST" -v again="$PREEMPTED" -v gone="$GONE" '
        { print; fflush() }
        /^jaxbio exited with [0-9]+$/ {
            if (code == lost || code == 0 || (code == again && $4 != 0)) code = $4
            if (code == gone && $4 != 0 && $4 != again) code = $4
        }
        END { exit code }'
}

line=$(printf ' %q' "$@")
while true; do
    gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker=all \
        --command "cd ~/jaxbio && .venv/bin/python launch/run.py$line; echo jaxbio exited with \$?" | read_codes
    code=$?
    if [ "$code" -ne "$PREEMPTED" ] && [ "$code" -ne "$GONE" ] && [ "$code" -ne "$LOST" ]; then
        exit "$code"
    fi
    echo "stopped with $code; starting again as soon as $TPU is ready"
    state=unknown
    until [ "$state" = READY ]; do
        sleep "$WAIT_S"
        state=$(gcloud compute tpus tpu-vm describe "$TPU" --zone "$ZONE" --format 'value(state)')
    done
done
