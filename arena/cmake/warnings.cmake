# ndarena_enable_warnings(target): the warning set of the project, errors with NDARENA_WERROR.
function(ndarena_enable_warnings target)
  set(flags
      -Wall
      -Wextra
      -Wpedantic
      -Wcast-align
      -Wcast-qual
      -Wconversion
      -Wextra-semi
      -Wnon-virtual-dtor
      -Wold-style-cast
      -Woverloaded-virtual
      -Wshadow
      -Wsign-conversion
      -Wundef
      -Wvla)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND flags -Wduplicated-branches -Wduplicated-cond -Wlogical-op)
  elseif(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    list(APPEND flags -Wthread-safety -Wimplicit-fallthrough)
  endif()
  if(NDARENA_WERROR)
    list(APPEND flags -Werror)
  endif()
  target_compile_options(${target} INTERFACE ${flags})
endfunction()
