# Installs and exports ndarena::core, ndarena::headers and ndarena::numpy (component devel).
include(CMakePackageConfigHelpers)

install(
  TARGETS ndarena_core ndarena_headers ndarena_numpy
  EXPORT ndarenaTargets
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT devel
  FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT devel)
install(
  EXPORT ndarenaTargets
  NAMESPACE ndarena::
  DESTINATION "${NDARENA_CMAKE_DIR}"
  COMPONENT devel)

configure_package_config_file(
  "${CMAKE_CURRENT_LIST_DIR}/ndarenaConfig.cmake.in"
  "${CMAKE_CURRENT_BINARY_DIR}/ndarenaConfig.cmake"
  INSTALL_DESTINATION "${NDARENA_CMAKE_DIR}"
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/ndarenaConfigVersion.cmake"
                                 COMPATIBILITY SameMinorVersion)
install(
  FILES "${CMAKE_CURRENT_BINARY_DIR}/ndarenaConfig.cmake"
        "${CMAKE_CURRENT_BINARY_DIR}/ndarenaConfigVersion.cmake"
  DESTINATION "${NDARENA_CMAKE_DIR}"
  COMPONENT devel)

# Relocatable: the prefix is told by where the file lies.
file(RELATIVE_PATH NDARENA_PC_PREFIX "/prefix/${NDARENA_PKGCONFIG_DIR}" "/prefix")
string(REGEX REPLACE "/$" "" NDARENA_PC_PREFIX "${NDARENA_PC_PREFIX}")
configure_file("${CMAKE_CURRENT_LIST_DIR}/ndarena.pc.in" "${CMAKE_CURRENT_BINARY_DIR}/ndarena.pc" @ONLY)
install(
  FILES "${CMAKE_CURRENT_BINARY_DIR}/ndarena.pc"
  DESTINATION "${NDARENA_PKGCONFIG_DIR}"
  COMPONENT devel)
