#include "platform/platform.hpp"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <memory>

#include <csignal>

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x00004000U
#endif

namespace ndarena::platform {
namespace {

std::atomic<interrupt_hook> hook_of_process{nullptr};

std::string first_line(const char* path) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path, "re"),
                                                               &std::fclose);
    std::array<char, 256> text{};
    if (!file || std::fgets(text.data(), static_cast<int>(text.size()), file.get()) == nullptr) {
        return {};
    }
    return text.data();
}

std::uint64_t number_in(const char* path) {
    const std::string text = first_line(path);
    if (text.empty() || std::isdigit(static_cast<unsigned char>(text.front())) == 0) {
        return std::numeric_limits<std::uint64_t>::max();  // missing, or "max"
    }
    return std::strtoull(text.c_str(), nullptr, 10);
}

std::array<std::uint8_t, 16> boot_id() noexcept {
    std::array<std::uint8_t, 16> id{};
    const std::string text = first_line("/proc/sys/kernel/random/boot_id");
    std::size_t digit = 0;
    for (const char c : text) {
        if (std::isxdigit(static_cast<unsigned char>(c)) == 0 || digit >= 2 * id.size()) {
            continue;
        }
        const int value = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
        id[digit / 2] = static_cast<std::uint8_t>((id[digit / 2] << 4) | value);
        ++digit;
    }
    return id;
}

std::atomic<unsigned char> no_guard{1};

std::atomic<unsigned char>* guard_byte() noexcept {
    // One page that the kernel clears in every child; never unmapped.
    static std::atomic<unsigned char>* byte = [] {
        auto page = mapped_region::map_private(page_size);
        if (!page) {
            return &no_guard;
        }
        auto* b = new (page->data()) std::atomic<unsigned char>(1);
        (void)wipe_on_fork(page->data(), page_size);
        page->release();
        return b;
    }();
    return byte;
}

}  // namespace

bool futex_wait(std::atomic<std::uint32_t>* word, std::uint32_t expected,
                unsigned milliseconds) noexcept {
    struct timespec timeout {};
    timeout.tv_sec = milliseconds / 1000;
    timeout.tv_nsec = static_cast<long>(milliseconds % 1000) * 1000000L;
    return ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(word), FUTEX_WAIT, expected,
                     &timeout, nullptr, 0) != 0 &&
           errno == EINTR;
}

void futex_wake_one(std::atomic<std::uint32_t>* word) noexcept {
    ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(word), FUTEX_WAKE, 1, nullptr, nullptr,
              0);
}

void set_interrupt_hook(interrupt_hook hook) noexcept {
    hook_of_process.store(hook, std::memory_order_release);
}

bool wait_is_given_up(bool cut_short) noexcept {
    const interrupt_hook hook = hook_of_process.load(std::memory_order_acquire);
    return hook != nullptr && hook(cut_short);
}

bool sleep_milliseconds(unsigned milliseconds) noexcept {
    return ::usleep(milliseconds * 1000) != 0 && errno == EINTR;
}

std::uint64_t monotonic_milliseconds() noexcept {
    struct timespec now {};
    ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1000 +
           static_cast<std::uint64_t>(now.tv_nsec) / 1000000;
}

std::uint64_t unix_time() noexcept { return static_cast<std::uint64_t>(::time(nullptr)); }

std::uint32_t process_id() noexcept { return static_cast<std::uint32_t>(::getpid()); }

bool process_exists(std::uint32_t pid) noexcept {
    return ::kill(static_cast<pid_t>(pid), 0) == 0 || errno == EPERM;
}

bool instance_id::is_certainly(const instance_id& o) const noexcept {
    return mount != 0 && boot == o.boot && device == o.device && inode == o.inode &&
           generation == o.generation && mount == o.mount;
}

instance_id instance_of(int fd) noexcept {
    instance_id id;
    static const std::array<std::uint8_t, 16> this_boot = boot_id();
    id.boot = this_boot;
    struct stat st {};
    if (::fstat(fd, &st) == 0) {
        id.device = st.st_dev;
        id.inode = st.st_ino;
    }
    long generation = 0;  // the kernel writes 32 bits, some file systems a long
    if (::ioctl(fd, FS_IOC_GETVERSION, &generation) == 0) {
        id.generation = static_cast<std::uint32_t>(generation);
    }
    struct statx stx {};
    if (::statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID_UNIQUE, &stx) == 0 &&
        (stx.stx_mask & STATX_MNT_ID_UNIQUE) != 0) {
        id.mount = stx.stx_mnt_id;
    }
    return id;
}

std::uint64_t memory_limit() noexcept {
    const auto pages = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES));
    std::uint64_t limit = pages * page_size;
    limit = std::min(limit, number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    limit = std::min(limit, number_in("/sys/fs/cgroup/memory.max"));
    // The group of this process, where the mount shows the whole hierarchy.
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> groups(
        std::fopen("/proc/self/cgroup", "re"), &std::fclose);
    std::array<char, 512> line{};
    while (groups &&
           std::fgets(line.data(), static_cast<int>(line.size()), groups.get()) != nullptr) {
        std::string text = line.data();
        while (!text.empty() && text.back() == '\n') {
            text.pop_back();
        }
        const auto v1 = text.find(":memory:");
        const auto v2 = text.find("::");
        if (v1 != std::string::npos) {
            limit = std::min(limit, number_in(("/sys/fs/cgroup/memory" + text.substr(v1 + 8) +
                                               "/memory.limit_in_bytes")
                                                  .c_str()));
        } else if (v2 != std::string::npos) {
            limit = std::min(
                limit, number_in(("/sys/fs/cgroup" + text.substr(v2 + 2) + "/memory.max").c_str()));
        }
    }
    return limit;
}

std::atomic<const std::atomic<unsigned char>*> fork_guard{&no_guard};

void arm_fork_guard() noexcept {
    guard_byte()->store(1, std::memory_order_relaxed);
    fork_guard.store(guard_byte(), std::memory_order_release);
}

}  // namespace ndarena::platform
