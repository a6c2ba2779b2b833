// How segments come into being; private to the segment layer.
#pragma once

#include "segment/segment.hpp"

namespace ndarena::segment {

class opener {
public:
    static result<std::unique_ptr<segment>> open_existing(const segment_options& options,
                                                          const std::string& path, bool writable);
    static result<std::unique_ptr<segment>> create_named(const segment_options& options,
                                                         const std::string& path);
    static result<std::unique_ptr<segment>> create_scratch(const segment_options& options);
    static result<std::unique_ptr<segment>> over_buffer(const segment_options& options);

private:
    static result<void> format_file(segment& seg, const segment_options& options);
    static result<void> map_new(segment& seg, std::uint64_t least, const std::string& shown);
    static result<void> join(segment& seg, bool writable);
    static result<void> prepare_new(segment& seg, const segment_options& options);
    static result<void> take_open_lock(segment& seg, bool exclusive);
    static result<void> take_slot(segment& seg);
    static result<void> attach_or_format(segment& seg, const segment_options& options);
    static void find_backing(segment& seg, bool plain_memory);
};

// Waits for nobody longer than this while another process is opening.
constexpr unsigned open_timeout_ms = 10000;
// Reserved address space of a segment that can grow.
constexpr std::uint64_t default_reserve = std::uint64_t{1} << 40;
constexpr std::uint64_t least_reserve = std::uint64_t{256} << 30;

std::array<std::uint8_t, 16> new_uuid() noexcept;
result<void> check_options(const segment_options& options);

}  // namespace ndarena::segment
