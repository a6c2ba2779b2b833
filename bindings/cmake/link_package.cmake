# Script: links each entry of SOURCES, and TOOLS as `tools`, into PACKAGE_DIR, and drops links whose
# source has gone.
file(MAKE_DIRECTORY "${PACKAGE_DIR}")
file(GLOB old LIST_DIRECTORIES true "${PACKAGE_DIR}/*")
foreach(entry IN LISTS old)
  if(IS_SYMLINK "${entry}" AND NOT EXISTS "${entry}")
    file(REMOVE "${entry}")
  endif()
endforeach()

file(GLOB entries LIST_DIRECTORIES true "${SOURCES}/*")
list(FILTER entries EXCLUDE REGEX "/__pycache__$")
foreach(entry IN LISTS entries)
  get_filename_component(name "${entry}" NAME)
  file(CREATE_LINK "${entry}" "${PACKAGE_DIR}/${name}" SYMBOLIC)
endforeach()
if(EXISTS "${TOOLS}")
  file(CREATE_LINK "${TOOLS}" "${PACKAGE_DIR}/tools" SYMBOLIC)
endif()
