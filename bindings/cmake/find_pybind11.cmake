# pybind11 from Debian (2.10) or from PyPI. In a pip build scikit-build-core has its place on the
# search path already; elsewhere the interpreter is asked first, then the system is searched.
set(PYBIND11_FINDPYTHON ON)
if(NOT pybind11_DIR AND NOT DEFINED SKBUILD)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -m pybind11 --cmakedir
    OUTPUT_VARIABLE _pybind11_dir
    RESULT_VARIABLE _pybind11_missing
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(NOT _pybind11_missing)
    set(pybind11_DIR "${_pybind11_dir}" CACHE PATH "Folder of pybind11Config.cmake")
  endif()
endif()
find_package(pybind11 2.10 CONFIG REQUIRED)
