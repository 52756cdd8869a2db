"""The texts of the mails, in each language: a subject and paragraphs, as Jinja2 templates of the event's fields.

`shop_url` is the address of the shop. A paragraph that begins with four blanks is a command.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.inventory import StockLow
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated, OrderDelivered, OrderShipped
from contracts.payments import PaymentPartiallyRefunded, PaymentRefunded
from contracts.users import Language, UserEmailVerificationRequested, UserPasswordResetRequested, UserRegistered

WEBHOOK_DISABLED = "webhook.disabled"

RESET_COMMAND = """    curl {{ shop_url }}/users/password-reset/confirm -H 'Content-Type: application/json' \
-d '{"token": "{{ token }}", "new_password": "..."}'"""
VERIFY_COMMAND = """    curl {{ shop_url }}/users/verify-email -H 'Content-Type: application/json' \
-d '{"token": "{{ token }}"}'"""


@dataclass(frozen=True, slots=True)
class MailText:
    """A subject and paragraphs."""

    subject: str
    paragraphs: tuple[str, ...]


ENGLISH: Mapping[str, MailText] = {
    UserRegistered.event_type: MailText(
        "Welcome", ("Your account {{ email }} is ready. We are glad that you are here.",)
    ),
    OrderCreated.event_type: MailText(
        "We have received your order",
        ("Thank you. We are checking stock and payment for your order {{ order_id }}.",),
    ),
    OrderConfirmed.event_type: MailText(
        "Your order is confirmed",
        (
            "Thank you. Your order {{ order_id }} of {{ total_amount }} {{ currency }} is paid, and we are packing it.",
            "We will write again when it is on its way.",
        ),
    ),
    OrderCancelled.event_type: MailText(
        "Your order is cancelled",
        ("Your order {{ order_id }} is cancelled: {{ reason_in_words }}.", "You pay nothing for it."),
    ),
    OrderShipped.event_type: MailText(
        "Your order is on its way",
        (
            "Your order {{ order_id }} has left our warehouse.",
            "{% if carrier %}Carrier: {{ carrier }}{% endif %}",
            "{% if tracking_number %}Tracking number: {{ tracking_number }}{% endif %}",
        ),
    ),
    OrderDelivered.event_type: MailText(
        "Your order has arrived", ("Your order {{ order_id }} was delivered. Enjoy it.",)
    ),
    PaymentRefunded.event_type: MailText(
        "You get your money back",
        (
            "We have refunded your order {{ order_id }}{% if amount %}: {{ amount }} {{ currency }}{% endif %}.",
            "Your bank needs a few days to show it.",
        ),
    ),
    PaymentPartiallyRefunded.event_type: MailText(
        "You get a part of your money back",
        (
            "We have refunded {{ amount }} {{ currency }} of your order {{ order_id }}.",
            "Your bank needs a few days to show it.",
        ),
    ),
    StockLow.event_type: MailText(
        "{{ product_sku }} is running out",
        ("Only {{ available }} of {{ product_sku }} are available. The threshold is {{ threshold }}.",),
    ),
    UserPasswordResetRequested.event_type: MailText(
        "Set a new password",
        (
            (
                "Someone, probably you, wants to set a new password for your account. Until {{ expires_at }} (UTC) this"
                " command does it, once:"
            ),
            RESET_COMMAND,
            "If it was not you, ignore this mail: your password stays as it is.",
        ),
    ),
    UserEmailVerificationRequested.event_type: MailText(
        "Confirm your e-mail address",
        ("This command confirms that this address is yours. It works until {{ expires_at }} (UTC):", VERIFY_COMMAND),
    ),
    WEBHOOK_DISABLED: MailText(
        "A webhook is disabled",
        (
            "Your webhook {{ url }} receives nothing any more: {{ reason_in_words }}.",
            (
                "When it works again, enable it with PATCH {{ shop_url }}/webhooks/{{ id }}, and send what it missed by"
                " POST {{ shop_url }}/webhooks/{{ id }}/replay."
            ),
        ),
    ),
}

TURKISH: Mapping[str, MailText] = {
    UserRegistered.event_type: MailText("Hoş geldiniz", ("{{ email }} hesabınız hazır. Aramıza hoş geldiniz.",)),
    OrderCreated.event_type: MailText(
        "Siparişinizi aldık",
        ("Teşekkür ederiz. {{ order_id }} numaralı siparişinizin stok ve ödeme kontrolünü yapıyoruz.",),
    ),
    OrderConfirmed.event_type: MailText(
        "Siparişiniz onaylandı",
        (
            (
                "Teşekkür ederiz. {{ total_amount }} {{ currency }} tutarındaki {{ order_id }} numaralı siparişinizin"
                " ödemesi alındı, paketliyoruz."
            ),
            "Yola çıktığında yeniden yazacağız.",
        ),
    ),
    OrderCancelled.event_type: MailText(
        "Siparişiniz iptal edildi",
        (
            "{{ order_id }} numaralı siparişiniz iptal edildi: {{ reason_in_words }}.",
            "Sizden ücret alınmayacak.",
        ),
    ),
    OrderShipped.event_type: MailText(
        "Siparişiniz yola çıktı",
        (
            "{{ order_id }} numaralı siparişiniz depomuzdan çıktı.",
            "{% if carrier %}Kargo firması: {{ carrier }}{% endif %}",
            "{% if tracking_number %}Takip numarası: {{ tracking_number }}{% endif %}",
        ),
    ),
    OrderDelivered.event_type: MailText(
        "Siparişiniz teslim edildi",
        ("{{ order_id }} numaralı siparişiniz teslim edildi. Güle güle kullanın.",),
    ),
    PaymentRefunded.event_type: MailText(
        "Ödemeniz iade edildi",
        (
            (
                "{{ order_id }} numaralı siparişinizin ödemesini iade ettik{% if amount %}: {{ amount }} {{ currency }}"
                "{% endif %}."
            ),
            "Bankanızda görünmesi birkaç gün sürebilir.",
        ),
    ),
    PaymentPartiallyRefunded.event_type: MailText(
        "Ödemenizin bir kısmı iade edildi",
        (
            "{{ order_id }} numaralı siparişinizin {{ amount }} {{ currency }} tutarındaki kısmını iade ettik.",
            "Bankanızda görünmesi birkaç gün sürebilir.",
        ),
    ),
    StockLow.event_type: MailText(
        "{{ product_sku }} tükenmek üzere",
        ("{{ product_sku }} ürününden yalnızca {{ available }} adet kaldı. Eşik: {{ threshold }}.",),
    ),
    UserPasswordResetRequested.event_type: MailText(
        "Yeni parola belirleyin",
        (
            (
                "Hesabınız için yeni bir parola istendi. Aşağıdaki komut {{ expires_at }} (UTC) zamanına kadar bir kez"
                " kullanılabilir:"
            ),
            RESET_COMMAND,
            "Bunu siz istemediyseniz bu iletiyi dikkate almayın: parolanız değişmez.",
        ),
    ),
    UserEmailVerificationRequested.event_type: MailText(
        "E-posta adresinizi doğrulayın",
        (
            "Aşağıdaki komut bu adresin size ait olduğunu doğrular. {{ expires_at }} (UTC) zamanına kadar geçerlidir:",
            VERIFY_COMMAND,
        ),
    ),
    WEBHOOK_DISABLED: MailText(
        "Bir webhook kapatıldı",
        (
            "{{ url }} adresindeki webhook artık hiçbir ileti almıyor: {{ reason_in_words }}.",
            (
                "Yeniden çalıştığında PATCH {{ shop_url }}/webhooks/{{ id }} ile açın, kaçırdıklarını"
                " POST {{ shop_url }}/webhooks/{{ id }}/replay ile gönderin."
            ),
        ),
    ),
}

TEXTS: Mapping[str, Mapping[str, MailText]] = {Language.ENGLISH: ENGLISH, Language.TURKISH: TURKISH}

GREETINGS: Mapping[str, str] = {Language.ENGLISH: "Hello,", Language.TURKISH: "Merhaba,"}
CLOSINGS: Mapping[str, str] = {Language.ENGLISH: "Your shop", Language.TURKISH: "Mağazanız"}

REASONS: Mapping[str, Mapping[str, str]] = {
    Language.ENGLISH: {
        CancelReason.OUT_OF_STOCK: "we do not have enough of it in stock",
        CancelReason.PAYMENT_FAILED: "the payment was declined",
        CancelReason.TIMEOUT: "we could not process it in time",
        CancelReason.USER: "you asked for it",
        CancelReason.ADMIN: "our shop had to cancel it",
        "GONE": "it responded that it is gone (410)",
        "FAILING": "all deliveries of the last five days failed",
        "BACKLOG": "too many deliveries were waiting for it",
        "NOT_ADMIN": "it received the events of the whole shop, and you are no longer an administrator",
    },
    Language.TURKISH: {
        CancelReason.OUT_OF_STOCK: "stokta yeterli ürün yok",
        CancelReason.PAYMENT_FAILED: "ödeme reddedildi",
        CancelReason.TIMEOUT: "zamanında işleyemedik",
        CancelReason.USER: "siz istediniz",
        CancelReason.ADMIN: "mağazamız iptal etmek zorunda kaldı",
        "GONE": "adres kalıcı olarak kaldırıldığını bildirdi (410)",
        "FAILING": "son beş gündeki tüm iletiler başarısız oldu",
        "BACKLOG": "çok fazla ileti bekliyordu",
        "NOT_ADMIN": "tüm mağazanın olaylarını alıyordu ve artık yönetici değilsiniz",
    },
}
