# Where things are installed, relative to the prefix. The same layout serves /usr/local and a wheel,
# where the prefix is the package folder: include, lib, share/cmake/ndarena, share/pkgconfig.
if(DEFINED SKBUILD)
  set(CMAKE_INSTALL_LIBDIR lib) # not lib64: ndarena.pc and the tests name it
endif()
include(GNUInstallDirs)
set(NDARENA_CMAKE_DIR "${CMAKE_INSTALL_DATADIR}/cmake/ndarena")
set(NDARENA_PKGCONFIG_DIR "${CMAKE_INSTALL_DATADIR}/pkgconfig")
