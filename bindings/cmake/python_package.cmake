# Installs the package (component python), and makes a complete one in the build tree at
# <build>/python/ndarena: the extension, links to the Python sources, and the installed C++ library.
# Tests and developers put <build>/python on PYTHONPATH.
#
# A plain `cmake --install` installs the C++ library alone. With a pip build the extension comes along;
# its Python sources are named in pyproject.toml. Elsewhere the package is asked for by component:
#   cmake --install build --component python --prefix <site-packages>/ndarena
set(_package_dir "${PROJECT_BINARY_DIR}/python/ndarena")
set_target_properties(_core PROPERTIES LIBRARY_OUTPUT_DIRECTORY "$<1:${_package_dir}>")

if(DEFINED SKBUILD)
  install(TARGETS _core DESTINATION . COMPONENT python)
else()
  set(_options COMPONENT python EXCLUDE_FROM_ALL PATTERN __pycache__ EXCLUDE)
  install(TARGETS _core DESTINATION . COMPONENT python EXCLUDE_FROM_ALL)
  install(DIRECTORY "${PROJECT_SOURCE_DIR}/bindings/ndarena/" DESTINATION . ${_options})
  install(DIRECTORY "${PROJECT_SOURCE_DIR}/tools" DESTINATION . ${_options})

  add_custom_target(
    ndarena_package ALL
    COMMAND
      "${CMAKE_COMMAND}" "-DPACKAGE_DIR=${_package_dir}"
      "-DSOURCES=${PROJECT_SOURCE_DIR}/bindings/ndarena" "-DTOOLS=${PROJECT_SOURCE_DIR}/tools" -P
      "${CMAKE_CURRENT_LIST_DIR}/link_package.cmake"
    COMMAND "${CMAKE_COMMAND}" --install "${PROJECT_BINARY_DIR}" --config $<CONFIG> --component devel
            --prefix "${_package_dir}" > "${PROJECT_BINARY_DIR}/python/install.log"
    DEPENDS _core ndarena_core
    COMMENT "Laying out the package in ${PROJECT_BINARY_DIR}/python"
    VERBATIM)
endif()
