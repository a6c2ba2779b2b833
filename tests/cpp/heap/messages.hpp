// Messages between processes, as tests send them.
#pragma once

#include "heap/fixture.hpp"

#include <string>

namespace ndarena::heap {

struct message {
    block_id id;
    token ticket;
};

inline std::uint64_t in_transit(heap& h) { return h.stats().in_transit; }
inline std::uint64_t blocks_in(heap& h) { return h.stats().n_blocks; }

class TransitTest : public HeapTest {
protected:
    static message send(heap& h, const void* block, std::uint32_t readers = 1) {
        message m;
        std::uint64_t nbytes = 0;
        EXPECT_TRUE(h.identify(block, m.id, nbytes));
        const auto sent = h.send(block, readers);
        EXPECT_TRUE(sent) << (sent ? "" : sent.err().message);
        m.ticket = sent ? *sent : token{};
        return m;
    }
    // A block of recognisable content, sent and let go of by its sender.
    static message send_new(heap& h, std::uint64_t nbytes, std::uint64_t seed,
                            std::uint32_t readers = 1) {
        void* p = h.allocate(nbytes, 0, false);
        EXPECT_NE(p, nullptr) << h.refusal();
        fill(p, nbytes, seed);
        const message m = send(h, p, readers);
        EXPECT_TRUE(h.deallocate(p));
        return m;
    }
    static void* attach_to(heap& h, const message& m) {
        std::uint64_t nbytes = 0;
        auto got = h.attach(m.id, m.ticket, nbytes);
        EXPECT_TRUE(got) << (got ? "" : got.err().message);
        return got ? *got : nullptr;
    }
    // The reason why it is refused.
    static errc refused(heap& h, const message& m) {
        std::uint64_t nbytes = 0;
        auto got = h.attach(m.id, m.ticket, nbytes);
        EXPECT_FALSE(got);
        return got ? errc::ok : got.err().code;
    }
    static void expect_empty(heap& h) {
        EXPECT_EQ(blocks_in(h), 0U);
        EXPECT_EQ(in_transit(h), 0U);
        EXPECT_EQ(h.live_blocks(), 0U);
        EXPECT_EQ(findings_of(h), "");
    }
    static segment::transit_token& token_of(heap& h, std::uint32_t index) {
        return reinterpret_cast<segment::transit_token*>(h.base() +
                                                         h.seg().geo().transit_offset())[index];
    }
    // As if the sender had been found dead so long ago.
    static void age(heap& h, const message& m, std::uint64_t milliseconds) {
        token_of(h, m.ticket.index).noticed = platform::monotonic_milliseconds() - milliseconds;
    }
};

}  // namespace ndarena::heap
