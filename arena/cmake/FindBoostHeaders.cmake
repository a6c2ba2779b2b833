# Boost as headers only, from whichever place has them:
#
#   1. -DBOOST_HEADERS_DIR=<folder that contains boost/version.hpp>
#   2. in a pip build: the wheel libboost-headers (or boost-headers) beside the build's interpreter
#   3. the system
#   4. the wheel, as in 2, outside a pip build
#
# Defines BoostHeaders_FOUND, BoostHeaders_VERSION, BoostHeaders_INCLUDE_DIR and the target
# BoostHeaders::headers.

function(_boost_headers_from_python out)
  if(NOT Python_EXECUTABLE)
    find_package(Python QUIET COMPONENTS Interpreter)
  endif()
  set(dir "")
  if(Python_EXECUTABLE)
    # find_spec locates a package without importing it
    execute_process(
      COMMAND
        "${Python_EXECUTABLE}" -c "
import importlib.util, os
for name in ('libboost_headers', 'boost_headers'):
    spec = importlib.util.find_spec(name)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        include = os.path.join(folder, 'include')
        if os.path.exists(os.path.join(include, 'boost', 'version.hpp')):
            print(include)
            raise SystemExit
"
      OUTPUT_VARIABLE dir
      OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  set(${out} "${dir}" PARENT_SCOPE)
endfunction()

set(BoostHeaders_INCLUDE_DIR "${BOOST_HEADERS_DIR}")
if(NOT BoostHeaders_INCLUDE_DIR AND DEFINED SKBUILD)
  _boost_headers_from_python(BoostHeaders_INCLUDE_DIR)
endif()
if(NOT BoostHeaders_INCLUDE_DIR)
  find_path(BOOST_HEADERS_SYSTEM_DIR boost/interprocess/offset_ptr.hpp)
  mark_as_advanced(BOOST_HEADERS_SYSTEM_DIR)
  if(BOOST_HEADERS_SYSTEM_DIR)
    set(BoostHeaders_INCLUDE_DIR "${BOOST_HEADERS_SYSTEM_DIR}")
  else()
    _boost_headers_from_python(BoostHeaders_INCLUDE_DIR)
  endif()
endif()

set(BoostHeaders_VERSION "")
if(EXISTS "${BoostHeaders_INCLUDE_DIR}/boost/version.hpp")
  file(STRINGS "${BoostHeaders_INCLUDE_DIR}/boost/version.hpp" _boost_version
       REGEX "^#define BOOST_VERSION [0-9]+")
  string(REGEX REPLACE "[^0-9]" "" _boost_version "${_boost_version}")
  math(EXPR _boost_major "${_boost_version} / 100000")
  math(EXPR _boost_minor "${_boost_version} / 100 % 1000")
  math(EXPR _boost_patch "${_boost_version} % 100")
  set(BoostHeaders_VERSION "${_boost_major}.${_boost_minor}.${_boost_patch}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  BoostHeaders
  REQUIRED_VARS BoostHeaders_INCLUDE_DIR BoostHeaders_VERSION
  VERSION_VAR BoostHeaders_VERSION
  REASON_FAILURE_MESSAGE
    "install libboost-dev, or the wheel libboost-headers, or set BOOST_HEADERS_DIR")

if(BoostHeaders_FOUND AND NOT TARGET BoostHeaders::headers)
  add_library(BoostHeaders::headers INTERFACE IMPORTED)
  set_target_properties(
    BoostHeaders::headers
    PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${BoostHeaders_INCLUDE_DIR}"
               INTERFACE_COMPILE_DEFINITIONS "BOOST_ALL_NO_LIB;BOOST_DATE_TIME_NO_LIB")
endif()
