// Child processes of a test.
#pragma once

#include <gtest/gtest.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <string>
#include <utility>

#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace ndarena::test {

// Ends a child: with 1 if an expectation of the test has failed in it.
[[noreturn]] inline void leave_child() {
    std::fflush(nullptr);
    ::_exit(::testing::Test::HasFailure() ? 1 : 0);
}

// A child made by fork that runs `body`; killed by the destructor if nobody
// has waited for it.
class child {
public:
    template <class F>
    explicit child(F&& body) {
        std::fflush(nullptr);
        pid_ = ::fork();
        if (pid_ == 0) {
            std::forward<F>(body)();
            leave_child();
        }
    }
    child(child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
    child& operator=(child&& other) noexcept {
        std::swap(pid_, other.pid_);
        return *this;
    }
    child(const child&) = delete;
    child& operator=(const child&) = delete;
    ~child() {
        if (pid_ > 0) {
            kill();
        }
    }

    pid_t pid() const { return pid_; }
    // The wait status: 0 if all went well.
    int wait() {
        int status = -1;
        while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
        }
        pid_ = -1;
        return status;
    }
    void kill() {
        ::kill(pid_, SIGKILL);
        (void)wait();
    }

private:
    pid_t pid_ = -1;
};

// Runs `body` in a fork child; its wait status.
template <class F>
int in_child(F&& body) {
    return child(std::forward<F>(body)).wait();
}

// The same in a child that no atfork handler has heard of.
template <class F>
int in_raw_child(F&& body) {
    std::fflush(nullptr);
    const long pid = ::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        std::forward<F>(body)();
        leave_child();
    }
    int status = -1;
    while (::waitpid(static_cast<pid_t>(pid), &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

// One-way signal between a parent and its child. Waiting ends after half a
// minute with false: the other side has failed.
class gate {
public:
    gate() { ok_ = ::pipe(ends_) == 0; }
    gate(const gate&) = delete;
    gate& operator=(const gate&) = delete;
    ~gate() {
        ::close(ends_[0]);
        ::close(ends_[1]);
    }
    void post() { ok_ = ::write(ends_[1], "", 1) == 1; }
    bool wait() {
        struct pollfd readable {
            ends_[0], POLLIN, 0
        };
        int ready = 0;
        while ((ready = ::poll(&readable, 1, 30000)) < 0 && errno == EINTR) {
        }
        char byte = 0;
        return ready == 1 && ::read(ends_[0], &byte, 1) == 1;
    }

private:
    int ends_[2] = {-1, -1};
    bool ok_ = false;
};

inline std::string describe_status(int status) {
    if (WIFSIGNALED(status)) {
        return "killed by signal " + std::to_string(WTERMSIG(status));
    }
    return "exit status " + std::to_string(WEXITSTATUS(status));
}

}  // namespace ndarena::test

#define EXPECT_CHILD_OK(...)                                                            \
    EXPECT_EQ(::ndarena::test::describe_status(::ndarena::test::in_child(__VA_ARGS__)), \
              "exit status 0")
