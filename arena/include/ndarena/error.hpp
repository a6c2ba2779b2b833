/// \file
/// Errors of the C++ library: one list of all failures, and `result<T>`.
///
/// Functions that open or change an arena return `result<T>`; allocation
/// returns null and keeps the reason (`arena::refusal`). Nothing prints.
/// Nothing throws, but `std::bad_alloc` where a message or a list finds no
/// memory, and where `memory_resource` has to. An `error` says what failed,
/// where (path, offset), and what to do; it is made for a person to read.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>

namespace ndarena {

/// What went wrong. The numbers are part of the C++ interface, never of the
/// file format; new ones are appended.
enum class errc : std::uint8_t {
    ok = 0,
    format,        ///< not an arena, a newer format, or another byte order
    corruption,    ///< an arena whose metadata contradicts itself
    closed,        ///< the arena was closed
    lock_timeout,  ///< another process held a lock longer than the bound
    read_only,     ///< a change was asked of an arena opened for reading
    not_found,     ///< no such file or segment
    exists,        ///< the file or segment is there already
    permission,    ///< the system refused access
    no_memory,     ///< no room: capacity, disk, address space or memory
    invalid,       ///< an argument is out of range
    unsupported,   ///< this file system, kernel or host cannot do it
    os,            ///< any other system call failure; see `os_errno`
    stale,         ///< the block that a reference names is gone
};

/// A failure with its explanation.
struct error {
    errc code = errc::ok;
    int os_errno = 0;     ///< errno of the failing call, 0 if none
    std::string message;  ///< what, where, and what to do
    std::string path;     ///< the file concerned, empty if none
};

/// Value or error. Test it with `if (r)`; `*r` and `r->` give the value,
/// `r.err()` the error. Reading the wrong one is undefined.
template <class T>
class [[nodiscard]] result {
public:
    result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    result(error e) : state_(std::in_place_index<1>, std::move(e)) {}

    explicit operator bool() const noexcept { return state_.index() == 0; }
    T& operator*() noexcept { return *std::get_if<0>(&state_); }
    const T& operator*() const noexcept { return *std::get_if<0>(&state_); }
    T* operator->() noexcept { return std::get_if<0>(&state_); }
    const T* operator->() const noexcept { return std::get_if<0>(&state_); }
    error& err() noexcept { return *std::get_if<1>(&state_); }
    const error& err() const noexcept { return *std::get_if<1>(&state_); }

private:
    std::variant<T, error> state_;
};

/// Success or error, for functions without a value.
template <>
class [[nodiscard]] result<void> {
public:
    result() = default;
    result(error e) : error_(std::move(e)), failed_(true) {}

    explicit operator bool() const noexcept { return !failed_; }
    error& err() noexcept { return error_; }
    const error& err() const noexcept { return error_; }

private:
    error error_;
    bool failed_ = false;
};

}  // namespace ndarena
