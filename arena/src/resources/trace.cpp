#include "resources/trace.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <new>

#include <pthread.h>
#include <unistd.h>

namespace ndarena::resources {
namespace {

constexpr std::uint64_t second = 1'000'000'000;
constexpr std::size_t text_bytes = std::size_t{1} << 16;
constexpr std::size_t longest_line = 160;
constexpr std::size_t log_every = 4096;  // events

std::uint64_t read_clock(clockid_t which) noexcept {
    timespec t{};
    (void)::clock_gettime(which, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * second + static_cast<std::uint64_t>(t.tv_nsec);
}

}  // namespace

trace::trace(std::size_t most_events, std::shared_ptr<stack_source> stacks, int log)
    : stacks_(std::move(stacks)),
      most_events_(std::max<std::size_t>(most_events, 2)),
      began_(read_clock(CLOCK_MONOTONIC)),
      log_(log),
      process_(::getpid()) {
    const auto wall = static_cast<std::time_t>(read_clock(CLOCK_REALTIME) / second);
    std::tm local{};
    (void)::localtime_r(&wall, &local);
    wall_offset_ =
        static_cast<std::int64_t>(read_clock(CLOCK_REALTIME) - read_clock(CLOCK_MONOTONIC)) +
        local.tm_gmtoff * static_cast<std::int64_t>(second);
    if (log_ >= 0) {
        text_.reserve(text_bytes);
        static constexpr char header[] = "Thread,Time,Action,Pointer,Size,Stream\n";
        fork_guard guard(mutex_);
        text_.assign(header, header + sizeof header - 1);
        write_out();
    }
}

trace::~trace() {
    (void)flush();
    if (log_ >= 0) {
        ::close(log_);
    }
}

std::uint64_t trace::now() const noexcept { return read_clock(CLOCK_MONOTONIC) - began_; }

void trace::note(trace_action action, const void* p, std::size_t nbytes,
                 std::uint32_t stack) noexcept {
    const std::uint64_t thread = ::pthread_self();
    fork_guard guard(mutex_);
    try {
        const std::uint16_t number = number_of(thread);
        next_entry() = {now(), reinterpret_cast<std::uintptr_t>(p), nbytes, stack, number, action};
        ++n_recent_;
    } catch (const std::bad_alloc&) {
        ++n_dropped_;
        return;
    }
    if (log_ >= 0 && n_recent_ - n_logged_ >= log_every) {
        write_log();
    }
}

// Of more threads than there are numbers the last share one.
std::uint16_t trace::number_of(std::uint64_t thread) {
    static constexpr std::size_t most = std::size_t{1} << 16;
    if (last_thread_ < threads_.size() && threads_[last_thread_] == thread) {
        return last_thread_;
    }
    std::size_t i = 0;
    while (i < threads_.size() && threads_[i] != thread) {
        ++i;
    }
    if (i == threads_.size()) {
        if (i == most) {
            i = most - 1;
            threads_[i] = thread;
        } else {
            threads_.push_back(thread);
        }
    }
    last_thread_ = static_cast<std::uint16_t>(i);
    return last_thread_;
}

trace_event trace::event_at(std::size_t i) const noexcept {
    const entry& e = (*recent_[i / piece_size])[i % piece_size];
    return {e.time, e.address, e.nbytes, threads_[e.thread], e.stack, e.action};
}

trace::entry& trace::next_entry() {
    if (n_recent_ >= most_events_) {
        fold();
    }
    if (n_recent_ / piece_size == recent_.size()) {
        recent_.emplace_back(new piece);  // not cleared
    }
    return (*recent_[n_recent_ / piece_size])[n_recent_ % piece_size];
}

void trace::apply(std::unordered_map<std::uint64_t, trace_event>& alive, std::size_t end) const {
    for (std::size_t i = 0; i < end; ++i) {
        const trace_event event = event_at(i);
        if (event.action == trace_action::allocate) {
            alive[event.address] = event;
        } else if (event.action == trace_action::free) {
            alive.erase(event.address);
        }
    }
}

// The older half goes, in whole pieces if there are two; what lives of it stays.
void trace::fold() {
    write_log();
    const std::size_t pieces = n_recent_ / piece_size / 2;
    const std::size_t n = pieces != 0 ? pieces * piece_size : n_recent_ / 2;
    apply(older_, n);
    if (pieces != 0) {
        std::rotate(recent_.begin(), recent_.begin() + static_cast<std::ptrdiff_t>(pieces),
                    recent_.end());
    } else {
        for (std::size_t i = n; i < n_recent_; ++i) {
            (*recent_[(i - n) / piece_size])[(i - n) % piece_size] =
                (*recent_[i / piece_size])[i % piece_size];
        }
    }
    n_dropped_ += n;
    n_recent_ -= n;
    n_logged_ = n_recent_;
}

std::vector<trace_event> trace::events() {
    fork_guard guard(mutex_);
    std::vector<trace_event> found;
    found.reserve(n_recent_);
    for (std::size_t i = 0; i < n_recent_; ++i) {
        found.push_back(event_at(i));
    }
    return found;
}

std::vector<trace_event> trace::live() {
    std::vector<trace_event> found;
    {
        fork_guard guard(mutex_);
        auto alive = older_;
        apply(alive, n_recent_);
        found.reserve(alive.size());
        for (const auto& event : alive) {
            found.push_back(event.second);
        }
    }
    std::sort(found.begin(), found.end(), [](const trace_event& a, const trace_event& b) {
        return a.time != b.time ? a.time < b.time : a.address < b.address;
    });
    return found;
}

std::uint64_t trace::n_dropped() {
    fork_guard guard(mutex_);
    return n_dropped_;
}

int trace::flush() noexcept {
    fork_guard guard(mutex_);
    write_log();
    return log_errno_;
}

void trace::write_log() noexcept {
    if (log_ >= 0 && process_ == ::getpid()) {
        for (std::size_t i = n_logged_; i < n_recent_; ++i) {
            write_line(event_at(i));
        }
        write_out();
    }
    n_logged_ = n_recent_;
}

void trace::write_line(const trace_event& event) noexcept {
    static constexpr std::array<const char*, 3> names{"allocate", "free", "allocate failure"};
    static constexpr std::uint64_t day = 86400 * second;
    if (text_.size() + longest_line > text_bytes) {
        write_out();
    }
    const std::uint64_t at =
        static_cast<std::uint64_t>(static_cast<std::int64_t>(began_ + event.time) + wall_offset_) %
        day;
    const std::uint64_t seconds = at / second;
    const std::size_t used = text_.size();
    text_.resize(used + longest_line);  // has been reserved
    const int length = std::snprintf(
        text_.data() + used, longest_line, "%llu,%02u:%02u:%02u.%06u,%s,0x%llx,%llu,0x0\n",
        static_cast<unsigned long long>(event.thread), static_cast<unsigned>(seconds / 3600),
        static_cast<unsigned>(seconds / 60 % 60), static_cast<unsigned>(seconds % 60),
        static_cast<unsigned>(at % second / 1000), names[static_cast<std::size_t>(event.action)],
        static_cast<unsigned long long>(event.address),
        static_cast<unsigned long long>(event.nbytes));
    text_.resize(used + static_cast<std::size_t>(std::max(length, 0)));
}

void trace::write_out() noexcept {
    std::size_t written = 0;
    while (written < text_.size()) {
        const ssize_t n = ::write(log_, text_.data() + written, text_.size() - written);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            log_errno_ = n < 0 ? errno : EIO;
            break;
        }
        written += static_cast<std::size_t>(n);
    }
    text_.clear();
}

}  // namespace ndarena::resources
