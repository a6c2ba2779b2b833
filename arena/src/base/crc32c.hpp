// CRC-32C (Castagnoli, polynomial 0x1EDC6F41, reflected), as in iSCSI and ext4.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ndarena::base {

// Checksum of `size` bytes; pass a former result as `seed` to continue it. Uses
// the processor's instructions for it where there are any.
std::uint32_t crc32c(const void* data, std::size_t size, std::uint32_t seed = 0) noexcept;

// The same on any processor.
std::uint32_t crc32c_portable(const void* data, std::size_t size, std::uint32_t seed = 0) noexcept;

}  // namespace ndarena::base
