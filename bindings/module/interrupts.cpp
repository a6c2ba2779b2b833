#include "interrupts.hpp"

#include "segment/segment.hpp"

namespace ndarena::module {
namespace {

constexpr unsigned moment_ms = 100;
constexpr unsigned patience_ms = segment::slot_lock::default_timeout_ms;

struct wait_state {
    std::uint64_t until = 0;  // 0: not a short wait
    bool gave_up = false;
};
thread_local wait_state this_thread;

// Called from inside an allocation too, so it must not run any Python code:
// it looks for a pending SIGINT, and leaves it to be raised by the
// interpreter, after the MemoryError that giving up leads to.
bool should_give_up(bool cut_short) noexcept {
    if (this_thread.until != 0) {
        this_thread.gave_up = this_thread.gave_up || cut_short || is_past(this_thread.until);
        return this_thread.gave_up;
    }
    if (PyGILState_Check() == 0 || PyOS_InterruptOccurred() == 0) {
        return false;
    }
    PyErr_SetInterrupt();
    return true;
}

}  // namespace

void install_interrupts() noexcept { platform::set_interrupt_hook(&should_give_up); }

std::uint64_t patience_ends() noexcept { return platform::monotonic_milliseconds() + patience_ms; }
bool is_past(std::uint64_t moment) noexcept { return platform::monotonic_milliseconds() > moment; }

short_wait::short_wait() noexcept {
    this_thread = {platform::monotonic_milliseconds() + moment_ms, false};
}
short_wait::~short_wait() { this_thread = {}; }
bool short_wait::gave_up() const noexcept { return this_thread.gave_up; }

}  // namespace ndarena::module
