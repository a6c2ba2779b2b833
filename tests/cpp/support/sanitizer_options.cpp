// The sanitizers' run-time options, compiled in so that a test started by hand behaves as under
// ctest. The sanitizers look these functions up by name; in a build without them nobody does.

extern "C" {

const char* __asan_default_options();
const char* __ubsan_default_options();
const char* __tsan_default_options();

const char* __asan_default_options() {
    return "detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:"
           "allocator_may_return_null=1";
}

const char* __ubsan_default_options() { return "print_stacktrace=1:halt_on_error=1"; }

const char* __tsan_default_options() {
    return "die_after_fork=0:halt_on_error=1:second_deadlock_stack=1:"
           "allocator_may_return_null=1";
}
}
