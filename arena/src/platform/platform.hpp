// Layer 1: the operating system behind plain functions. Linux only; includes
// only the base layer. Functions marked noexcept allocate no memory.
#pragma once

#include "platform/byte_lock.hpp"
#include "platform/file.hpp"
#include "platform/mapping.hpp"
#include "platform/mutex.hpp"
#include "platform/system.hpp"
#include "platform/unique_fd.hpp"

#if !defined(__linux__) || !defined(__LP64__)
#error "ndarena needs 64-bit Linux"
#endif
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "ndarena needs a little-endian host"
#endif
