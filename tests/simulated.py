"""What tests ask of XLA: simulated devices, and code made without effort, as most of their time is the compiler's."""


def xla_flags(devices: int) -> str:
    """Return the XLA_FLAGS of a process with `devices` CPU devices, which compiles in half of the time."""
    return " ".join(
        [
            f"--xla_force_host_platform_device_count={devices}",
            # many devices on two cores make slow collectives
            "--xla_cpu_collective_call_terminate_timeout_seconds=600",
            "--xla_backend_optimization_level=0",
            "--xla_llvm_disable_expensive_passes=true",
            "--xla_cpu_parallel_codegen_split_count=1",
        ]
    )
