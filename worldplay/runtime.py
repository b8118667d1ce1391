"""Device, number type, timers and memory of this machine; the only module that says cuda."""
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch.utils._pytree import tree_leaves

NO_COMPILER = "no C++ compiler on the path"


def pick_device(name="auto"):
    """(torch.device, reason) for "auto", "cpu" or "cuda".

        Raises ValueError when "cuda" is asked for and there is none, or the name is unknown.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device {name}: expected auto, cpu or cuda")
    if torch.cuda.is_available() and name != "cpu":
        return torch.device("cuda"), torch.cuda.get_device_name()
    if name == "cuda":
        raise ValueError("--device cuda: this PyTorch sees no CUDA device; use --device cpu, or install a "
                         f"CUDA build of PyTorch (this one is {torch.__version__})")
    return torch.device("cpu"), "as asked" if name == "cpu" else "no CUDA device"


def take_device(device, number):
    """The torch.device of this process, the `number`-th on its machine; a GPU becomes its current one."""
    if device.type != "cuda":
        return device
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def collectives(device):
    """The backend of torch.distributed for networks on `device` and counters on the CPU."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def pick_dtype(device):
    """(dtype, reason): bfloat16 where the hardware multiplies it natively, float32 otherwise."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        native = major >= 8
        return (torch.bfloat16 if native else torch.float32), f"SM {major}.{minor}"
    if torch.cpu._is_amx_tile_supported():
        return torch.bfloat16, "AMX"
    if torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16, "AVX-512 BF16"
    return torch.float32, "no bfloat16 arithmetic on this processor"


def pick_compile(device):
    """(bool, reason): whether torch.compile finds the compilers that it needs for the device."""
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return False, "Python's C headers are not installed"
    if device.type == "cuda":
        found = importlib.util.find_spec("triton") is not None
        return found, "Triton" if found else "Triton is not installed"
    compiler = next((name for name in ("g++", "clang++", "cl") if shutil.which(name)), None)
    return compiler is not None, compiler or NO_COMPILER


def cpp_compiler():
    """The C++ compiler that builds native code; None where it is not on the path.

    Not clang++: its code calls another OpenMP runtime than torch's, which would not load (tried with 14).
    """
    return "g++" if shutil.which("g++") else None


def keep_compiled_code(folder):
    """Make torch.compile cache its code in `folder`, for later processes too.

    A folder that the user has set (TORCHINDUCTOR_CACHE_DIR) is kept, and so is torch's default where `folder`
    has a space in its path, which the compiler does not accept.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir
    name = "TORCHINDUCTOR_CACHE_DIR"  # torch writes its own choice there, as if the user had
    if os.environ.get(name) in (None, default_cache_dir()) and not re.search(r"\s", str(folder)):
        os.environ[name] = str(folder)


def device_name(device):
    """Name of the hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} threads"


def instructions(device):
    """The hardware and the instruction set that compiled code is made for."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {torch.cuda.get_device_capability(device)}"
    return f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}"


def extensions():
    """The instruction set extensions of the processor, as Linux names them; "" elsewhere.

    Its name alone does not tell: virtual machines hide some, and on ARM there may be no name.
    """
    return _cpuinfo("flags") or _cpuinfo("Features")


def _processor():
    if name := _cpuinfo("model name"):
        return name
    import platform
    return platform.processor() or platform.machine()


def _cpuinfo(field):
    """What Linux says in a line of the first processor; "" without such a line."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            return next(line.split(":", 1)[1].strip() for line in info if line.startswith(field))
    except (OSError, StopIteration):
        return ""


def synchronize(device):
    """Wait until the device has finished all work in its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def records(device):
    """Whether the device runs again what was recorded, faster than Python says it once more."""
    return device.type == "cuda"


def record(device, work):
    """(what work() gives, a function that makes it again): a CUDA graph on a GPU, on others the call itself.

    work  reads and writes tensors that stay where they are, draws no random number and waits for nothing on
          the device; it is run several times here, so a second time must change nothing
    Returns  tensors in the same places, filled by each call of the function and not before the first

    Source: torch.cuda.graphs and gpt-fast, whose steps run on buffers of a fixed size and place.
    """
    if device.type != "cuda":
        given = work()

        def again():
            for kept, made in zip(tree_leaves(given), tree_leaves(work()), strict=True):
                if isinstance(kept, torch.Tensor):
                    kept.copy_(made)
        return given, again
    stream, graph = _recording_stream(device), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):  # kernels are loaded and workspaces taken, which cannot be recorded
        for _ in range(3):
            work()
    torch.cuda.current_stream(device).wait_stream(stream)
    # Its own pool: what it gives must outlive the others' work. Another thread may load code meanwhile.
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        given = work()
    return given, graph.replay


@cache
def _recording_stream(device):
    """One for all graphs: cuBLAS keeps a workspace for every stream."""
    return torch.cuda.Stream(device)


def upload(x, device):
    """Copy a CPU tensor to the device; to a GPU through page-locked memory, so that the CPU does not wait."""
    return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)


def memory(device):
    """(free bytes, all bytes) of the device's memory; None for the CPU, where the system may swap."""
    return torch.cuda.mem_get_info(device) if device.type == "cuda" else None


def has_room(device, num_bytes):
    """Whether the device has that much memory left."""
    found = memory(device)
    return found is None or found[0] >= num_bytes


def release_memory(device):
    """Return the device memory that this process has reserved and does not use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def forget_peak_memory(device):
    """Reset `peak_memory_mib` of a GPU; that of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mib(device):
    """Most memory this process has held: on the GPU if there is one, of the process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        import psutil
        return psutil.Process().memory_info().peak_wset / 2**20
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def work_ms(device, work):
    """{name: milliseconds} of what work() runs, without callees: GPU kernels, or operators on a processor."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or the profiler says on stderr that it starts and stops
    is_gpu = device.type == "cuda"
    use_device = device.type if is_gpu else None
    with torch.autograd.profiler.profile(use_device=use_device, use_kineto=is_gpu) as profiler:
        work()
        synchronize(device)
    kind = torch.autograd.DeviceType.CUDA if is_gpu else torch.autograd.DeviceType.CPU
    return {event.key: (event.self_device_time_total if is_gpu else event.self_cpu_time_total) / 1000
            for event in profiler.key_averages() if event.device_type == kind}


@contextmanager
def measured(device, into, name):
    """Context manager: appends the wall time of its block in milliseconds to the list into[name].

    It waits for work queued on the device before and after the block.
    """
    synchronize(device)
    start = time.perf_counter()
    yield
    synchronize(device)
    into.setdefault(name, []).append(1000 * (time.perf_counter() - start))
