# The C++ tests, one list and one executable per layer, in alphabetical order. Paths are relative to
# this folder.

# compiled into every test executable
set(NDARENA_TEST_SUPPORT support/sanitizer_options.cpp)

set(NDARENA_BASE_TESTS)
set(NDARENA_PLATFORM_TESTS)
set(NDARENA_SEGMENT_TESTS)
set(NDARENA_JOURNAL_TESTS)
set(NDARENA_TLSF_TESTS)
set(NDARENA_HEAP_TESTS)
set(NDARENA_DIRECTORY_TESTS)
set(NDARENA_RESOURCES_TESTS)
