# The files of arena/, one list per layer from bottom to top, in alphabetical order. A file that is not
# named here is not built. Paths are relative to this folder.

set(NDARENA_PUBLIC_HEADERS
    include/ndarena/arena.hpp
    include/ndarena/error.hpp
    include/ndarena/memory_resource.hpp)

set(NDARENA_BASE_SOURCES
    src/base/crc32c.cpp
    src/base/text.cpp)
set(NDARENA_PLATFORM_SOURCES
    src/platform/byte_lock.cpp
    src/platform/file.cpp
    src/platform/mapping.cpp
    src/platform/mutex.cpp
    src/platform/space.cpp
    src/platform/system.cpp)
set(NDARENA_SEGMENT_SOURCES
    src/segment/buffer.cpp
    src/segment/format.cpp
    src/segment/opener.cpp
    src/segment/segment.cpp
    src/segment/slot_lock.cpp
    src/segment/transient.cpp)
set(NDARENA_JOURNAL_SOURCES
    src/journal/undo_log.cpp)
set(NDARENA_TLSF_SOURCES
    src/tlsf/block_table.cpp
    src/tlsf/check.cpp
    src/tlsf/free_lists.cpp
    src/tlsf/tlsf.cpp)
set(NDARENA_HEAP_SOURCES
    src/heap/allocate.cpp
    src/heap/arena.cpp
    src/heap/fork.cpp
    src/heap/heap.cpp
    src/heap/owners.cpp
    src/heap/pointer_map.cpp
    src/heap/registry.cpp
    src/heap/report.cpp
    src/heap/space.cpp
    src/heap/transit.cpp)
set(NDARENA_DIRECTORY_SOURCES)
set(NDARENA_RESOURCES_SOURCES)

# those that every allocation runs through, from bottom to top
set(NDARENA_HOT_SOURCES
    src/segment/format.cpp
    src/journal/undo_log.cpp
    src/tlsf/block_table.cpp
    src/tlsf/free_lists.cpp
    src/tlsf/tlsf.cpp
    src/heap/pointer_map.cpp
    src/heap/heap.cpp
    src/heap/allocate.cpp
    src/heap/arena.cpp)

# needs Python and NumPy: compiled into the extension, not into the library
set(NDARENA_NUMPY_SOURCES
    src/numpy/blocks.cpp
    src/numpy/handler.cpp
    src/numpy/import.cpp
    src/numpy/install.cpp
    src/numpy/introspect.cpp
    src/numpy/lease.cpp)
