"""Words that are in every text, whatever it is about."""

from __future__ import annotations

_ENGLISH = """
i me my mine we us our you your he him his she her it its they them their this that these those
the a an and or but if of at by for with about to from in on into out up as than then so too also
is are was were be been am do does did have has had will would can could should shall may might
must not no yes there here what which who whom whose when where how why all any some each every
just very more most other only own same please thanks thank ok okay sure hello hi hey want need
like let get got give know think say said tell help find look looking make really good great nice
fine well right one two anything something else s t m d re ve ll don doesn didn isn
"""
_GERMAN = """
ich mich mir mein meine du dich dir dein er ihn ihm sein sie ihr es wir uns unser der die das den
dem des ein eine einen einem einer und oder aber wenn von bei für mit über zu zum zur aus in im an
am auf als auch so dann ist sind war waren bin bist hat habe haben wird werden kann können soll
muss nicht kein keine ja nein da hier was wer wie wo wann warum alle noch nur schon sehr mehr bitte
danke hallo möchte brauche gut gerne gibt mal
"""
_FRENCH = """
je me moi mon ma mes tu te toi ton il elle on nous vous notre votre ils elles le la les l un une
des du de d et ou mais si que qui quoi dans sur pour par avec sans à au aux en ce cet cette ces est
sont été être ai as a avons avez ont fait peut peux pas ne n oui non où quand comment pourquoi tout
plus très aussi bien merci bonjour voudrais veux besoin s c j qu y
"""
_SPANISH = """
yo mi mis tú te tu él ella nosotros su sus el la los las lo un una unos de del al y e o pero si que
qué quién en con por para sin sobre a es son era ser está están estoy he ha hay tiene puede puedo
no sí se le les me nos este esta esto ese esa cuando cómo dónde más muy también bien gracias favor
hola quiero necesito
"""
_ITALIAN = """
io mio mia tu tuo lui lei noi voi loro il lo la i gli le un uno una di del della da dal in nel a al
alla con su per tra e o ma se che chi cosa è sono era essere ho hai ha abbiamo può posso non sì no
ci si mi ti vi questo questa quello quando come dove più molto anche bene grazie ciao vorrei
"""
_PORTUGUESE = """
eu meu minha você ele ela nós seu sua o a os as um uma de do da dos das em no na nos nas por para
com sem e ou mas se que quem é são era ser está estou tem tenho pode posso não sim este esta isso
quando como onde mais muito também bem obrigado obrigada olá quero preciso favor
"""
_DUTCH = """
ik mij mijn jij je jouw u uw hij hem zijn zij ze haar het wij we ons jullie de een en of maar als
van bij voor met over naar uit in op aan is was waren ben bent heeft heb hebben wordt kan kunnen
niet geen ja nee er hier wat wie hoe waar wanneer alle nog ook zo dan meer graag dank hallo wil
"""

#: The commonest words of seven languages, and what people are polite with.
COMMON = frozenset(
    word
    for language in (_ENGLISH, _GERMAN, _FRENCH, _SPANISH, _ITALIAN, _PORTUGUESE, _DUTCH)
    for word in language.split()
)
