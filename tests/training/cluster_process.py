"""One process of a run of several, started by test_distributed: ADDRESS PROCESSES PROCESS WORKDIR [STOP_STEP].

The process with the highest number sends itself SIGTERM before STOP_STEP, as a preempted host would get it.
"""

import os
import signal
import sys
import time
from pathlib import Path

import jax
from array_data import ArrayData, array_program, run

from jaxbio.config.faults import run_command
from jaxbio.training.distributed import join

ADDRESS, PROCESSES, PROCESS, WORKDIR = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
STOP_STEP = int(sys.argv[5]) if len(sys.argv) > 5 else None


def main(_):
    named = (ADDRESS, PROCESSES, PROCESS) if PROCESSES > 1 else ()  # alone nothing is found, nothing is started
    with join(*named, limit_s=120) as peers:
        assert (peers.process, peers.processes) == (PROCESS, PROCESSES)
        assert jax.process_count() == PROCESSES
        peers.agree("a number", {"number": 7})

        def before(step):
            if step == STOP_STEP and PROCESS == PROCESSES - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            if STOP_STEP is not None:
                time.sleep(0.05)  # a step long enough for a notice to travel

        program = array_program(jax.devices(), train__steps=30, checkpoint__every_steps=100, eval__every_steps=30)
        return run(program, WORKDIR, ArrayData(program.config, before=before), peers=peers)


run_command(main)
