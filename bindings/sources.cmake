# The files of the extension module, in alphabetical order. Paths are relative to this folder.
set(NDARENA_MODULE_SOURCES
    module/c_api.cpp
    module/errors.cpp
    module/interrupts.cpp
    module/module.cpp
    module/py_arena.cpp
    module/register_arena.cpp
    module/register_blocks.cpp
    module/register_config.cpp
    module/register_handlers.cpp
    module/register_names.cpp
    module/register_open.cpp
    module/register_resources.cpp
    module/register_stored.cpp
    module/register_tracing.cpp)
