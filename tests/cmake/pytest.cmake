# pytest as ctest entries, over the package of the build tree. It needs an interpreter with pytest that
# has no editable install of ndarena (its import hook would win over PYTHONPATH).
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter)

set(_environment "PYTHONPATH=${PROJECT_BINARY_DIR}/python" PYTHONDONTWRITEBYTECODE=1)
set(_selection "")

# A sanitizer's run-time library must come before everything else in a process that it did not build.
function(_preload out)
  set(libraries "")
  foreach(name IN LISTS ARGN)
    execute_process(
      COMMAND "${CMAKE_CXX_COMPILER}" -print-file-name=${name}
      OUTPUT_VARIABLE path
      OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
    if(NOT IS_ABSOLUTE "${path}")
      message(FATAL_ERROR "${CMAKE_CXX_COMPILER} has no ${name}: configure with g++")
    endif()
    list(APPEND libraries "${path}")
  endforeach()
  list(JOIN libraries " " libraries)
  set(${out} "LD_PRELOAD=${libraries}" PARENT_SCOPE)
endfunction()

set(_supp "${CMAKE_CURRENT_LIST_DIR}/../sanitizers")
if("address" IN_LIST NDARENA_SANITIZE)
  _preload(_library libasan.so libstdc++.so) # the second lets exceptions be intercepted
  list(
    APPEND
    _environment
    "${_library}"
    PYTHONMALLOC=malloc
    "ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:abort_on_error=1"
    "UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1")
elseif("thread" IN_LIST NDARENA_SANITIZE)
  _preload(_library libtsan.so)
  list(
    APPEND
    _environment
    "${_library}"
    OPENBLAS_NUM_THREADS=1
    "TSAN_OPTIONS=die_after_fork=0:allocator_may_return_null=1:suppressions=${_supp}/tsan.supp")
endif()
if(NDARENA_SANITIZE)
  list(APPEND _environment NDARENA_TEST_SANITIZE=1 HEAP_MODEL_EXAMPLES=10)
  set(_selection -m "not slow and not nosan")
  # Mostly the start of other programs, many times slower here and nothing new to see.
  set(_left_out cli cli_names demo pytest_plugin open_modes closed introspection creation interrupt
                segments_command segments_left sharing sharing_deaths)
  if("thread" IN_LIST NDARENA_SANITIZE) # and where there is only one thread there is nothing at all
    list(APPEND _left_out buffer errors export golden import names powerfail ref_errors replay sizes)
  endif()
  foreach(name IN LISTS _left_out)
    if(NOT EXISTS "${PROJECT_SOURCE_DIR}/tests/python/test_${name}.py")
      message(FATAL_ERROR "there is no tests/python/test_${name}.py to leave out")
    endif()
    list(APPEND _selection "--ignore=tests/python/test_${name}.py")
  endforeach()
elseif(NDARENA_COVERAGE)
  set(_selection -m "not slow")
endif()

# ndarena_add_pytest(name folder [pytest arguments…])
function(ndarena_add_pytest name folder)
  add_test(
    NAME ${name}
    COMMAND "${Python_EXECUTABLE}" -m pytest -p no:cacheprovider "${folder}" ${ARGN}
    WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
  set_tests_properties(${name} PROPERTIES ENVIRONMENT "${_environment}" LABELS python TIMEOUT 1500)
endfunction()

ndarena_add_pytest(pytest tests/python ${_selection})
if(NOT NDARENA_SANITIZE AND NOT NDARENA_COVERAGE)
  ndarena_add_pytest(codebase tests/codebase) # builds consumers, which would need the same flags
endif()
