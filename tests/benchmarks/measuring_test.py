"""What is measured of a command, with real processes."""

import signal
import sys
from pathlib import Path

from converters.benchmarking import measuring

_MIB = 1 << 20
_IN_A_CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"


def _python(program: str) -> measuring.Measurement:
    return measuring.run([sys.executable, "-c", program])


def _python_in_a_child(program: str) -> measuring.Measurement:
    return measuring.run([sys.executable, "-c", _IN_A_CHILD, program])


def test_the_peak_is_of_all_processes_together() -> None:
    program = "import time; held = b'x' * (80 << 20); time.sleep(0.5)"
    parent = f"import subprocess, sys; held = b'x' * (60 << 20); subprocess.run([sys.executable, '-c', {program!r}])"
    small = _python("import time; time.sleep(0.1)")
    both = _python(parent)
    assert both.code == 0
    assert small.peak_bytes < 40 * _MIB
    assert 140 * _MIB <= both.peak_bytes < 200 * _MIB


def test_memory_that_a_child_gave_back_still_counts() -> None:
    found = _python_in_a_child("import time; held = b'x' * (90 << 20); time.sleep(0.3); del held; time.sleep(0.1)")
    assert 90 * _MIB <= found.peak_bytes < 150 * _MIB


def test_mapped_files_do_not_count_and_shared_memory_does(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * (64 * _MIB))
    touch = "sum(m[i] for i in range(0, len(m), 4096)); time.sleep(0.3)"
    mapped = _python(
        f"import mmap, time; f = open({str(file)!r}, 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); {touch}"
    )
    shared = _python(
        "import mmap, time; m = mmap.mmap(-1, 64 << 20)\nfor i in range(0, len(m), 4096): m[i] = 1\ntime.sleep(0.3)"
    )
    assert mapped.code == shared.code == 0
    assert mapped.peak_bytes < 40 * _MIB
    assert shared.peak_bytes >= 64 * _MIB


def test_bytes_of_a_child_are_counted(tmp_path: Path) -> None:
    program = (
        f"import os; f = os.open({str(tmp_path / 'file')!r}, os.O_RDWR | os.O_CREAT); "
        "os.write(f, bytes(5 << 20)); os.pread(f, 3 << 20, 0)"
    )
    found = _python_in_a_child(program)
    idle = _python_in_a_child("pass")
    assert found.code == 0
    assert 5 * _MIB <= found.characters_written - idle.characters_written < 6 * _MIB
    assert 3 * _MIB <= found.characters_read - idle.characters_read < 4 * _MIB


def test_cpu_time_of_a_child_is_counted_and_sleep_is_not() -> None:
    busy = "import time\nwhile time.process_time() < 0.4: pass"
    assert _python_in_a_child(busy).cpu_seconds >= 0.4
    asleep = _python_in_a_child("import time; time.sleep(0.4)")
    assert asleep.wall_seconds >= 0.4
    assert asleep.cpu_seconds < asleep.wall_seconds


def test_the_exit_code_and_the_end_of_the_output_are_kept() -> None:
    found = _python("import sys; print('x' * 10000); print('last', flush=True); sys.exit('wrong')")
    assert found.code == 1
    assert found.output.endswith("last\nwrong\n")
    assert len(found.output) < 5000


def test_a_killed_command_has_the_negative_number_of_its_signal() -> None:
    assert _python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").code == -signal.SIGKILL


def test_the_environment_is_the_given_one() -> None:
    assert measuring.run(["/bin/sh", "-c", 'printf "%s" "$GIVEN"'], {"GIVEN": "yes"}).output == "yes"
