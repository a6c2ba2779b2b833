# The C++ tests, one list and one executable per layer, in alphabetical order. Paths are relative to
# this folder.

# compiled into every test executable
set(NDARENA_TEST_SUPPORT support/sanitizer_options.cpp)

set(NDARENA_BASE_TESTS
    base/bits.cpp
    base/crc32c.cpp
    base/text.cpp)
set(NDARENA_PLATFORM_TESTS
    platform/byte_lock.cpp
    platform/file.cpp
    platform/mapping.cpp
    platform/system.cpp)
set(NDARENA_SEGMENT_TESTS
    segment/format.cpp
    segment/opening.cpp
    segment/slot_lock.cpp
    segment/slots.cpp
    segment/transient.cpp)
set(NDARENA_JOURNAL_TESTS
    journal/undo_log.cpp)
set(NDARENA_TLSF_TESTS
    tlsf/check_finds.cpp
    tlsf/death_sweep.cpp
    tlsf/model.cpp
    tlsf/placement.cpp
    tlsf/rollback.cpp
    tlsf/size_class.cpp)
set(NDARENA_HEAP_TESTS
    heap/arena.cpp
    heap/contents.cpp
    heap/damage.cpp
    heap/fork_private.cpp
    heap/fork_shared.cpp
    heap/full_disk.cpp
    heap/kill_sweep.cpp
    heap/kill_sweep_sharing.cpp
    heap/memory_resource.cpp
    heap/page_zero.cpp
    heap/pointer_map.cpp
    heap/processes.cpp
    heap/registry.cpp
    heap/scale.cpp
    heap/space.cpp
    heap/threads.cpp
    heap/transient.cpp
    heap/transit.cpp
    heap/transit_deaths.cpp
    heap/transit_hostile.cpp)
set(NDARENA_DIRECTORY_TESTS)
set(NDARENA_RESOURCES_TESTS)
