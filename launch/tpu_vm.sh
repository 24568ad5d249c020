#!/bin/bash
# One run on every host of a Cloud TPU VM or pod; preempted, it saves, and this script starts the same line again.
#
#   TPU=my-pod ZONE=europe-west4-b launch/tpu_vm.sh --config configs/qualityfm_base.py:tpu \
#       --config.data.store=/mnt/shared/store --workdir /mnt/shared/runs/base
#
# Expected on every host: this repository in ~/jaxbio with its environment (pip install '.[tpu]' into ~/jaxbio/.venv),
# and a file system that all hosts share for the store and the workdir. JAX finds the hosts by itself.
#
# It ends with the run's code when the run is done or has failed, and when the TPU is there no more or no start comes
# through; with 2 when there is no such TPU to begin with.
set -u
: "${TPU:?name the TPU: TPU=my-pod}" "${ZONE:?name its zone: ZONE=europe-west4-b}"
WAIT_S=${WAIT_S:-60} # between two looks at a TPU that is not ready, and before another start
TRIES=5              # as often may a look, or a start, fail in a row
SOON_S=600           # a start that ends sooner than this, lost or with a host gone, has failed
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

# Return as soon as the TPU is ready; exit with $code when it will not be, or after $1 looks in a row that fail.
wait_until_ready() {
    local failed=0 said state
    while true; do
        said=$(gcloud compute tpus tpu-vm describe "$TPU" --zone "$ZONE" --format 'value(state)' 2>&1) &&
            failed=0 || failed=$((failed + 1))
        state=$(grep -xE '[A-Z]+' <<<"$said")
        if [ "$failed" -gt 0 ] && [[ "$said" == *NOT_FOUND* ]]; then
            state=NOT_FOUND
        fi
        case "$state" in
            READY) return ;;
            PREEMPTED | TERMINATED | STOPPED | DELETING | NOT_FOUND)
                echo "error: $TPU in $ZONE is $state and will not be ready by itself: create or start it, then start" \
                    "the same line again" >&2
                exit "$code"
                ;;
        esac
        if [ "$failed" -ge "$1" ]; then
            echo "error: cannot look at $TPU in $ZONE ($failed times in a row): $said" >&2
            exit "$code"
        fi
        sleep "$WAIT_S"
    done
}

line=$(printf ' %q' "$@")
code=2 # until a run has another
vain=0
wait_until_ready 1
while true; do
    began=$SECONDS
    gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker=all \
        --command "cd ~/jaxbio && .venv/bin/python launch/run.py$line; echo jaxbio exited with \$?" | read_codes
    code=$?
    if [ "$code" -ne "$PREEMPTED" ] && [ "$code" -ne "$GONE" ] && [ "$code" -ne "$LOST" ]; then
        exit "$code"
    fi
    if [ "$code" -ne "$PREEMPTED" ] && [ $((SECONDS - began)) -lt "$SOON_S" ]; then
        vain=$((vain + 1))
    else
        vain=0
    fi
    if [ "$vain" -ge "$TRIES" ]; then
        echo "error: $TRIES starts in a row ended within $SOON_S s with a host that did not say how: does" \
            "gcloud ... ssh $TPU reach every worker?" >&2
        exit "$code"
    fi
    echo "stopped with $code; starting again as soon as $TPU is ready"
    sleep "$WAIT_S"
    wait_until_ready "$TRIES"
done
