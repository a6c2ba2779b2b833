// Child processes of a test.
#pragma once

#include <gtest/gtest.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <string>
#include <type_traits>
#include <utility>

#include <poll.h>
#include <sys/stat.h>
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

// Values sent from one process to another; a value is small enough to arrive whole.
template <class T>
class channel {
public:
    channel() { ok_ = ::pipe(ends_) == 0; }
    channel(const channel&) = delete;
    channel& operator=(const channel&) = delete;
    ~channel() {
        ::close(ends_[0]);
        ::close(ends_[1]);
    }
    bool send(const T& value) {
        static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 512);
        return ok_ && ::write(ends_[1], &value, sizeof value) == sizeof value;
    }
    // False if nothing came for half a minute.
    bool receive(T& value) {
        struct pollfd readable {
            ends_[0], POLLIN, 0
        };
        int ready = 0;
        while ((ready = ::poll(&readable, 1, 30000)) < 0 && errno == EINTR) {
        }
        return ready == 1 && ::read(ends_[0], &value, sizeof value) == sizeof value;
    }

private:
    int ends_[2] = {-1, -1};
    bool ok_ = false;
};

// Waits until another process has a file open that has these numbers; false
// if it has not after half a minute.
inline bool comes_to_open(pid_t pid, std::uint64_t device, std::uint64_t inode) {
    const std::string folder = "/proc/" + std::to_string(pid) + "/fd/";
    for (int i = 0; i < 30000; ++i, ::usleep(1000)) {
        for (int fd = 0; fd < 1024; ++fd) {
            struct stat st {};
            if (::stat((folder + std::to_string(fd)).c_str(), &st) == 0 && st.st_dev == device &&
                st.st_ino == inode) {
                return true;
            }
        }
    }
    return false;
}

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
