import ml_dtypes
import numpy as np
import pytest

from converters.formats.dtypes import NAMES, element_size, numpy_dtype


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_the_one_that_numpy_gives_the_type(name: str) -> None:
    assert numpy_dtype(name).name == name
    assert element_size(name) == np.zeros(1, numpy_dtype(name)).nbytes


def test_the_extension_types_are_those_of_ml_dtypes() -> None:
    assert numpy_dtype("bfloat16") == np.dtype(ml_dtypes.bfloat16)
    assert numpy_dtype("float8_e4m3fn") == np.dtype(ml_dtypes.float8_e4m3fn)
    assert numpy_dtype("float8_e5m2") == np.dtype(ml_dtypes.float8_e5m2)


@pytest.mark.parametrize("name", ["object", "complex64", "float8_e4m3fnuz", ""])
def test_other_types_are_refused(name: str) -> None:
    with pytest.raises(KeyError):
        numpy_dtype(name)
