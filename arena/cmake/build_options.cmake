# ndarena_build_options: what every target of this build is compiled with. Link it PRIVATE and, where
# the target is exported, inside $<BUILD_INTERFACE:>, so that nothing of it reaches an installation.
include(warnings)

set(CMAKE_CXX_EXTENSIONS OFF)

add_library(ndarena_build_options INTERFACE)
target_compile_features(ndarena_build_options INTERFACE cxx_std_17)
ndarena_enable_warnings(ndarena_build_options)

if(NDARENA_CHECKS)
  target_compile_definitions(ndarena_build_options INTERFACE NDARENA_CHECKS=1)
  target_compile_options(ndarena_build_options INTERFACE -UNDEBUG) # keeps assert in optimised builds
endif()

if(NDARENA_COVERAGE)
  target_compile_options(ndarena_build_options INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(ndarena_build_options INTERFACE --coverage)
endif()

if(NDARENA_SANITIZE)
  list(JOIN NDARENA_SANITIZE "," _sanitizers)
  target_compile_options(
    ndarena_build_options INTERFACE -fsanitize=${_sanitizers} -fno-sanitize-recover=all
                                    -fno-omit-frame-pointer)
  target_link_options(ndarena_build_options INTERFACE -fsanitize=${_sanitizers})
endif()

if(NDARENA_BUILD_FUZZERS)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "NDARENA_BUILD_FUZZERS needs clang: -DCMAKE_CXX_COMPILER=clang++")
  endif()
  # Every translation unit reports what it reaches (not what it compares: the targets aim by
  # themselves, and that would halve their speed); the programs bring libFuzzer's main.
  target_compile_options(ndarena_build_options INTERFACE -fsanitize=fuzzer-no-link
                                                         -fno-sanitize-coverage=trace-cmp)
  target_link_options(ndarena_build_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
