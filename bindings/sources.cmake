# The files of the extension module, in alphabetical order. Paths are relative to this folder.
set(NDARENA_MODULE_SOURCES)
