// The one place where errors of the core become Python exceptions.
#pragma once

#include <ndarena/error.hpp>

namespace ndarena::module {

// Raises the exception of ndarena.errors that belongs to the error.
[[noreturn]] void raise(const error& e);

template <class T>
T value_or_raise(result<T> r) {
    if (!r) {
        raise(r.err());
    }
    if constexpr (!std::is_void_v<T>) {
        return std::move(*r);
    }
}

}  // namespace ndarena::module
