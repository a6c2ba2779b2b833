// Ctrl-C while the core waits for another process.
//
// The core knows no Python: when a signal cuts a wait short it asks the
// function installed here whether to give up. Python code never runs inside
// the core, whose locks a signal handler's own arrays would need.
#pragma once

#include <cstdint>

#include <pybind11/pybind11.h>

namespace ndarena::module {

// To be called once, when the module is imported.
void install_interrupts() noexcept;

std::uint64_t patience_ends() noexcept;
bool is_past(std::uint64_t moment) noexcept;

// While one lives, this thread has let go of the interpreter: its waits end
// after a moment, or with a signal, so that it can look at signals itself.
class short_wait {
public:
    short_wait() noexcept;
    ~short_wait();
    short_wait(const short_wait&) = delete;
    short_wait& operator=(const short_wait&) = delete;
    // A wait has ended early since this was made.
    bool gave_up() const noexcept;
};

// Runs f() without the interpreter, again and again while a wait in it was cut
// short and `again(result)`, for as long as one wait may take in all. Raises
// what signal handlers raise in between.
template <class F, class Again>
auto wait_patiently(F&& f, Again&& again, std::uint64_t deadline = patience_ends()) {
    for (;;) {
        bool gave_up = false;
        auto got = [&] {
            const pybind11::gil_scoped_release released;
            const short_wait wait;
            auto result = f();
            gave_up = wait.gave_up();
            return result;
        }();
        if (!gave_up || !again(got) || is_past(deadline)) {
            return got;
        }
        if (PyErr_CheckSignals() != 0) {
            throw pybind11::error_already_set();
        }
    }
}

}  // namespace ndarena::module
