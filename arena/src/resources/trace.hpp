// What has been allocated through a tracing adaptor: events in the order in which
// they happened, and whatever is alive.
#pragma once

#include "resources/fork_mutex.hpp"

#include <array>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace ndarena::resources {

enum class trace_action : std::uint8_t { allocate, free, refuse };

struct trace_event {
    std::uint64_t time = 0;  // ns since the trace began
    std::uint64_t address = 0;
    std::uint64_t nbytes = 0;
    std::uint64_t thread = 0;  // pthread_self
    std::uint32_t stack = 0;   // of the stack_source; 0: none
    trace_action action = trace_action::allocate;
};

// Tells where a thread is. Called with no lock.
class stack_source {
public:
    stack_source() = default;
    virtual ~stack_source() = default;
    stack_source(const stack_source&) = delete;
    stack_source& operator=(const stack_source&) = delete;
    virtual std::uint32_t here() noexcept = 0;
};

// Bounded: the oldest events make room for new ones, and of them only what is
// still alive is kept. A log has all of them.
class trace {
public:
    // `log` is a descriptor that is written to and closed, or -1.
    trace(std::size_t most_events, std::shared_ptr<stack_source> stacks, int log);
    ~trace();
    trace(const trace&) = delete;
    trace& operator=(const trace&) = delete;

    std::uint32_t here() noexcept { return stacks_ == nullptr ? 0 : stacks_->here(); }
    void note(trace_action action, const void* p, std::size_t nbytes, std::uint32_t stack) noexcept;

    std::vector<trace_event> events();
    std::vector<trace_event> live();  // the allocations, oldest first
    std::uint64_t n_dropped();        // events that made room for others, or found no memory
    std::uint64_t now() const noexcept;
    // Writes to the log what is not there yet; 0 or the error of the last failed write.
    int flush() noexcept;

private:
    // A quarter less than the event, and never moved.
    struct entry {
        std::uint64_t time;
        std::uint64_t address;
        std::uint64_t nbytes;
        std::uint32_t stack;
        std::uint16_t thread;  // of threads_
        trace_action action;
    };
    static constexpr std::size_t piece_size = 1024;
    using piece = std::array<entry, piece_size>;

    std::uint16_t number_of(std::uint64_t thread) NDARENA_REQUIRES(mutex_);
    trace_event event_at(std::size_t i) const noexcept NDARENA_REQUIRES(mutex_);
    entry& next_entry() NDARENA_REQUIRES(mutex_);
    void apply(std::unordered_map<std::uint64_t, trace_event>& alive, std::size_t end) const
        NDARENA_REQUIRES(mutex_);
    void fold() NDARENA_REQUIRES(mutex_);
    void write_log() noexcept NDARENA_REQUIRES(mutex_);
    void write_line(const trace_event& event) noexcept NDARENA_REQUIRES(mutex_);
    void write_out() noexcept NDARENA_REQUIRES(mutex_);

    std::shared_ptr<stack_source> stacks_;
    std::size_t most_events_;
    std::uint64_t began_;       // monotonic, ns
    std::int64_t wall_offset_;  // what makes it the time of day, ns
    int log_;
    int process_;  // a fork child has no log

    fork_mutex mutex_;
    std::vector<std::unique_ptr<piece>> recent_;
    std::size_t n_recent_ = 0;
    std::size_t n_logged_ = 0;  // of them
    std::vector<std::uint64_t> threads_;
    std::uint16_t last_thread_ = 0;
    std::unordered_map<std::uint64_t, trace_event> older_;  // alive before the first of them
    std::uint64_t n_dropped_ = 0;
    int log_errno_ = 0;
    std::vector<char> text_;
};

}  // namespace ndarena::resources
