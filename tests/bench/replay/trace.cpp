#include "replay/trace.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>

namespace ndarena::bench {
namespace {

constexpr std::size_t header_bytes = 64;
constexpr std::size_t record_bytes = 1 + 1 + 4 + 8 + 4;
constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

template <class T>
T load(const std::vector<char>& bytes, std::size_t at) {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
}

// Numbers live blocks densely and adds up what they hold.
class builder {
public:
    explicit builder(trace& out) : out_(out) {}

    void make(std::uint64_t block, std::uint64_t size) {
        std::uint32_t slot = out_.slots;
        if (unused_.empty()) {
            ++out_.slots;
            out_.left.push_back(0);
        } else {
            slot = unused_.back();
            unused_.pop_back();
        }
        if (slot_of_.size() <= block) {
            slot_of_.resize(block + 1, none);
        }
        slot_of_[block] = slot;
        out_.left[slot] = size;
        live_ += size;
        out_.steps.push_back({size, slot, 0});
    }
    bool knows(std::uint64_t block) const {
        return block < slot_of_.size() && slot_of_[block] != none;
    }
    void drop_slot(std::uint32_t slot) {
        live_ -= out_.left[slot];
        out_.left[slot] = 0;
        unused_.push_back(slot);
        out_.steps.push_back({0, slot, 0});
    }
    void drop(std::uint64_t block) {
        drop_slot(slot_of_[block]);
        slot_of_[block] = none;
    }
    void resize(std::uint64_t block, std::uint64_t size) {
        const std::uint32_t old = slot_of_[block];
        make(block, size);  // both are live for a moment, as in a real move
        drop_slot(old);
    }
    void end_of_record() { out_.peak_bytes = std::max(out_.peak_bytes, live_); }

private:
    trace& out_;
    std::vector<std::uint32_t> slot_of_;
    std::vector<std::uint32_t> unused_;
    std::uint64_t live_ = 0;
};

}  // namespace

std::string read_trace(const std::string& path, std::uint64_t min_size, std::uint64_t max_records,
                       trace& out) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    if (bytes.size() < header_bytes || std::memcmp(bytes.data(), "NDTRACE1", 8) != 0) {
        return path + ": not an uncompressed NDTRACE1 file";
    }
    const auto records = load<std::uint64_t>(bytes, 8);
    if (records > bytes.size() / record_bytes ||
        bytes.size() < header_bytes + records * record_bytes) {
        return path + ": shorter than its header says";
    }
    builder build(out);
    std::uint64_t made = 0;
    for (std::uint64_t i = 0; i < std::min(records, max_records); ++i) {
        const auto op = load<std::uint8_t>(bytes, header_bytes + i);
        const auto back = load<std::uint32_t>(bytes, header_bytes + 2 * records + 4 * i);
        const auto size = load<std::uint64_t>(bytes, header_bytes + 6 * records + 8 * i);
        if (op < 1 || op > 4 || (op > 2 && (back == 0 || back > made))) {
            return path + ": record " + std::to_string(i) + " makes no sense";
        }
        const std::uint64_t block = op <= 2 ? made++ : made - back;
        const bool large = op != 4 && size >= std::max<std::uint64_t>(min_size, 1);
        if (!build.knows(block)) {
            if (large) {
                build.make(block, size);
            }
        } else if (op == 4) {
            build.drop(block);
        } else {
            build.resize(block, size);
        }
        build.end_of_record();
    }
    return {};
}

}  // namespace ndarena::bench
