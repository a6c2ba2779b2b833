// References that are wrong, old or made up; damage of the table of messages.
#include "heap/messages.hpp"

#include <algorithm>
#include <functional>

namespace ndarena::heap {
namespace {

constexpr std::uint64_t size = 100 * kib;

class StaleReference : public TransitTest {
protected:
    void SetUp() override { heap_ = create(); }
    std::shared_ptr<heap> heap_;
};

TEST_F(StaleReference, OfABlockThatWasFreed) {
    const message m = send_new(*heap_, size, 1);
    EXPECT_TRUE(heap_->deallocate(attach_to(*heap_, m)));
    EXPECT_EQ(refused(*heap_, m), errc::stale);
    heap_->trim();
    EXPECT_EQ(refused(*heap_, m), errc::stale);
    expect_empty(*heap_);
}

TEST_F(StaleReference, OfABlockWhosePlaceIsUsedAgain) {
    const message m = send_new(*heap_, size, 1);
    EXPECT_TRUE(heap_->deallocate(attach_to(*heap_, m)));
    message again = send_new(*heap_, size, 2);
    for (int i = 0; i < 10 && again.id.record != m.id.record; ++i) {  // records take turns
        EXPECT_TRUE(heap_->deallocate(attach_to(*heap_, again)));
        again = send_new(*heap_, size, 2);
    }
    ASSERT_EQ(again.id.offset, m.id.offset);
    ASSERT_EQ(again.id.record, m.id.record);
    EXPECT_EQ(refused(*heap_, m), errc::stale);
    EXPECT_EQ(refused(*heap_, {m.id, again.ticket}), errc::stale);
    EXPECT_EQ(in_transit(*heap_), 1U) << "nothing was taken by the wrong message";
    void* p = attach_to(*heap_, again);
    EXPECT_TRUE(holds(p, size, 2));
    EXPECT_TRUE(heap_->deallocate(p));
    expect_empty(*heap_);
}

TEST_F(StaleReference, WithOneNumberWrong) {
    const message m = send_new(*heap_, size, 1);
    void* other = heap_->allocate(size, 0, false);
    block_id other_id;
    std::uint64_t nbytes = 0;
    ASSERT_TRUE(heap_->identify(other, other_id, nbytes));
    for (const block_id& wrong :
         {block_id{m.id.offset + 64, m.id.serial, m.id.record},
          block_id{other_id.offset, m.id.serial, m.id.record},
          block_id{m.id.offset, m.id.serial + 1, m.id.record},
          block_id{m.id.offset, other_id.serial, m.id.record},
          block_id{m.id.offset, m.id.serial, other_id.record},
          block_id{m.id.offset, m.id.serial, m.id.record + 1000000},
          block_id{m.id.offset, m.id.serial, segment::nil}, block_id{0, 0, 0}, block_id{}}) {
        EXPECT_EQ(refused(*heap_, {wrong, m.ticket}), errc::stale)
            << wrong.offset << " " << wrong.serial << " " << wrong.record;
    }
    EXPECT_EQ(heap_->live_blocks(), 1U);
    EXPECT_EQ(in_transit(*heap_), 1U);
    // The ticket of one block never takes another's hold.
    EXPECT_EQ(attach_to(*heap_, {other_id, m.ticket}), other);
    EXPECT_EQ(in_transit(*heap_), 1U);
    EXPECT_EQ(findings_of(*heap_), "");
    EXPECT_TRUE(heap_->deallocate(attach_to(*heap_, m)));
}

// What is free, or the arena's own, has a record too.
TEST_F(StaleReference, OfRecordsThatAreNotAllocated) {
    const message m = send_new(*heap_, size, 1);
    const auto& control = heap_->seg().control();
    const auto* records = reinterpret_cast<const segment::block_record*>(
        heap_->base() + heap_->seg().geo().data_offset());
    int others = 0;
    for (std::uint32_t i = 0; i < control.record_bump; ++i) {
        const auto& r = records[i];
        if (r.state != segment::block_state::allocated) {
            ++others;
            EXPECT_EQ(refused(*heap_, {{r.offset, r.serial, i}, m.ticket}), errc::stale);
        }
    }
    EXPECT_GE(others, 2) << "the first chunk of records, and the free space";
    EXPECT_TRUE(heap_->deallocate(attach_to(*heap_, m)));
    expect_empty(*heap_);
}

TEST_F(StaleReference, OfAnArenaMadeAnew) {
    const message m = send_new(*heap_, size, 1);
    const auto fresh = open(file(path_, open_mode::create, 256 * mib));
    ASSERT_NE(fresh, heap_);
    EXPECT_NE(fresh->session(), heap_->session());
    EXPECT_EQ(heap::find_session(heap_->session()), heap_);
    EXPECT_EQ(heap::find_session(fresh->session()), fresh);
    void* there = fresh->allocate(size, 0, false);
    block_id id;
    std::uint64_t nbytes = 0;
    ASSERT_TRUE(fresh->identify(there, id, nbytes));
    ASSERT_EQ(id.offset, m.id.offset);
    EXPECT_EQ(refused(*fresh, m), errc::stale) << "serials of two sessions never match";
    EXPECT_TRUE(heap_->deallocate(attach_to(*heap_, m)));
}

// As after a reboot: the file is as it was, its state is not to be trusted.
TEST_F(StaleReference, OfAnInstanceBeforeAReboot) {
    const message m = send_new(*heap_, size, 1);
    const std::uint64_t session = heap_->session();
    heap_->seg().control().boot[0] ^= 1;
    heap_.reset();
    heap_ = attach();
    EXPECT_NE(heap_->session(), session);
    EXPECT_EQ(heap::find_session(session), nullptr);
    EXPECT_EQ(refused(*heap_, m), errc::stale);
    expect_empty(*heap_);
}

TEST_F(StaleReference, MadeUpAtRandom) {
    struct live {
        message m;
        void* p;
        std::uint64_t bytes;
    };
    std::mt19937_64 random(41);
    std::vector<live> blocks;
    for (std::uint64_t i = 0; i < 60; ++i) {
        const std::uint64_t bytes = 100 + i * i * 40;
        void* p = heap_->allocate(bytes, 0, false);
        fill(p, bytes, i);
        blocks.push_back({send(*heap_, p), p, bytes});
    }
    for (std::size_t i = 2; i < blocks.size(); i += 3) {  // holes, tokens used again
        heap_->deallocate(attach_to(*heap_, blocks[i].m));
        heap_->deallocate(blocks[i].p);
        blocks[i].p = nullptr;
    }
    const std::uint64_t flying = in_transit(*heap_);
    const auto pick = [&](std::uint64_t right, std::uint64_t similar) {
        switch (random() % 6) {
            case 0:
                return similar;
            case 1:
                return right + random() % 3 - 1;
            case 2:
                return random();
            case 3:
                return random() % 8 == 0 ? ~std::uint64_t{0} : std::uint64_t{0};
            default:
                return right;
        }
    };
    const int tries = test::under_sanitizer ? 100000 : 1000000;
    int served = 0;
    for (int i = 0; i < tries; ++i) {
        const live& a = blocks[random() % blocks.size()];
        const live& b = blocks[random() % blocks.size()];
        message m;
        m.id.offset = pick(a.m.id.offset, b.m.id.offset);
        m.id.serial = pick(a.m.id.serial, b.m.id.serial);
        m.id.record = static_cast<std::uint32_t>(pick(a.m.id.record, b.m.id.record));
        // Tickets that are right are for other tests: this one counts them.
        m.ticket.index = static_cast<std::uint32_t>(pick(a.m.ticket.index, b.m.ticket.index));
        m.ticket.serial = random();
        std::uint64_t nbytes = 0;
        const auto got = heap_->attach(m.id, m.ticket, nbytes);
        if (!got) {
            ASSERT_EQ(got.err().code, errc::stale);
            continue;
        }
        ++served;  // then it is exactly the block of that serial, which lives
        const auto owner = std::find_if(blocks.begin(), blocks.end(), [&](const live& l) {
            return l.p != nullptr && l.m.id.serial == m.id.serial;
        });
        ASSERT_NE(owner, blocks.end());
        ASSERT_EQ(*got, owner->p);
        ASSERT_EQ(nbytes, owner->bytes);
        ASSERT_TRUE(heap_->deallocate(*got));
    }
    EXPECT_GT(served, 100) << "some are right by chance, or nothing was tried";
    EXPECT_EQ(in_transit(*heap_), flying);
    EXPECT_EQ(findings_of(*heap_), "");
    for (std::uint64_t i = 0; i < blocks.size(); ++i) {
        if (blocks[i].p != nullptr) {
            ASSERT_TRUE(holds(blocks[i].p, blocks[i].bytes, i));
            ASSERT_TRUE(heap_->deallocate(attach_to(*heap_, blocks[i].m)));
            ASSERT_TRUE(heap_->deallocate(blocks[i].p));
        }
    }
    expect_empty(*heap_);
}

// Damage of the table of messages, each repaired again: check() names it.
class DamagedTokens : public TransitTest {
protected:
    void SetUp() override {
        heap_ = create();
        for (std::uint64_t i = 0; i < 4; ++i) {
            blocks_.push_back(heap_->allocate(size, 0, false));
            sent_.push_back(send(*heap_, blocks_.back()));
        }
        heap_->deallocate(attach_to(*heap_, sent_[1]));  // an unused one on the list
        ASSERT_EQ(findings_of(*heap_), "");
    }
    void expect_finding(const std::string& text, const std::function<void()>& harm) {
        const std::string before(tables(), tables() + bytes());
        harm();
        EXPECT_NE(findings_of(*heap_).find(text), std::string::npos)
            << "instead of \"" << text << "\": " << findings_of(*heap_);
        std::memcpy(tables(), before.data(), before.size());
        // The lock word and the generation are as they were: nobody else is here.
        ASSERT_EQ(findings_of(*heap_), "");
    }
    char* tables() {
        return reinterpret_cast<char*>(heap_->base() + heap_->seg().geo().control_offset());
    }
    std::uint64_t bytes() {
        return heap_->seg().geo().data_offset() - heap_->seg().geo().control_offset();
    }
    segment::transit_token& at(std::size_t i) { return token_of(*heap_, sent_[i].ticket.index); }
    segment::control_page& control() { return heap_->seg().control(); }
    std::shared_ptr<heap> heap_;
    std::vector<void*> blocks_;
    std::vector<message> sent_;
};

TEST_F(DamagedTokens, AreNamed) {
    const std::string first = "token " + std::to_string(sent_[0].ticket.index) + " is damaged";
    expect_finding(first, [&] { at(0).state = 7; });
    expect_finding(first, [&] { at(0).readers = 0; });
    expect_finding(first, [&] { at(0).record = 1000000; });
    expect_finding("holders", [&] { at(0).record = sent_[2].id.record; });
    expect_finding("5 tokens are counted, 3 are in flight", [&] { control().in_transit = 5; });
    expect_finding("1 are lost", [&] { control().transit_free = segment::nil; });
    expect_finding("leads to one that is used",
                   [&] { control().transit_free = sent_[0].ticket.index; });
    expect_finding("leads to one that is used", [&] { at(1).record = sent_[1].ticket.index; });
    expect_finding("leads to one that is used", [&] { control().transit_free = 4000000; });
    expect_finding("more tokens are in use than the table has",
                   [&] { control().transit_bump = 1000000; });
}

// Operations on a damaged table end in an error, not in foreign memory.
TEST_F(DamagedTokens, AreSurvived) {
    std::mt19937_64 random(43);
    const int rounds = test::under_sanitizer ? 30 : 200;
    for (int round = 0; round < rounds; ++round) {
        const std::uint64_t seed = random();
        ASSERT_EQ(test::describe_status(test::in_child([&] {
                      ::alarm(60);
                      std::mt19937_64 own(seed);
                      const auto h = open(file(dir_ / "damaged", open_mode::create, 16 * mib));
                      std::vector<message> sent;
                      for (int i = 0; i < 300; ++i) {
                          if (i % 30 == 29) {
                              std::uint32_t* words[] = {
                                  &h->seg().control().transit_free,
                                  &h->seg().control().transit_bump,
                                  &h->seg().control().in_transit,
                                  reinterpret_cast<std::uint32_t*>(
                                      &token_of(*h, static_cast<std::uint32_t>(own() % 40))) +
                                      own() % 8,
                              };
                              *words[own() % std::size(words)] =
                                  own() % 2 == 0 ? static_cast<std::uint32_t>(own())
                                                 : static_cast<std::uint32_t>(own() % 64);
                          }
                          void* p = h->allocate(1 + own() % 50000, 0, false);
                          block_id id;
                          std::uint64_t nbytes = 0;
                          if (p != nullptr && h->identify(p, id, nbytes)) {
                              std::memset(p, 1, nbytes);
                              if (auto ticket = h->send(p, 1 + own() % 2)) {
                                  sent.push_back({id, *ticket});
                              }
                              (void)h->deallocate(p);
                          }
                          if (!sent.empty() && own() % 2 == 0) {
                              const message& m = sent[own() % sent.size()];
                              if (auto got = h->attach(m.id, m.ticket, nbytes)) {
                                  std::memset(*got, 2, nbytes);
                                  (void)h->deallocate(*got);
                              }
                          }
                      }
                      (void)h->reclaim(0);
                      (void)h->check();
                      (void)h->stats();
                  })),
                  "exit status 0")
            << "seed " << seed;
    }
}

}  // namespace
}  // namespace ndarena::heap
